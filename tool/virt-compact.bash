# Completion of virt-compact for bash.  Commands and options come from the help of the command
# itself, so that they are those of the version that is installed.

_virt_compact()
{
  local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before= name= i
  COMPREPLY=()
  [ "$COMP_CWORD" -gt 0 ] && before=${COMP_WORDS[COMP_CWORD-1]}
  # "--color=al" comes as three words when "=" breaks words.
  if [ "$word" = "=" ]; then
    word=
  elif [ "$before" = "=" ]; then
    before=${COMP_WORDS[COMP_CWORD-2]}
  fi

  case $before in
    -f | --format | -O | --output-format | -F | --backing-format | --second-format) COMPREPLY=($(compgen -W 'qcow2 raw' -- "$word")); return ;;
    -t) COMPREPLY=($(compgen -W 'none directsync writeback writethrough unsafe' -- "$word")); return ;;
    --cache) COMPREPLY=($(compgen -W 'none directsync writeback writethrough unsafe keep' -- "$word")); return ;;
    --detect-zeroes) COMPREPLY=($(compgen -W 'unmap on off keep' -- "$word")); return ;;
    --discard) COMPREPLY=($(compgen -W 'unmap ignore keep' -- "$word")); return ;;
    --io) COMPREPLY=($(compgen -W 'native threads io_uring keep' -- "$word")); return ;;
    --backing) COMPREPLY=($(compgen -f -W 'owner follow deny none' -- "$word")); return ;;
    --data-file) COMPREPLY=($(compgen -W 'owner follow deny' -- "$word")); return ;;
    --limits) COMPREPLY=($(compgen -W 'size= ratio= snapshots= bitmaps= time=' -- "$word")); return ;;
    --color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    --compression) COMPREPLY=($(compgen -W 'none zstd zstd: zlib zlib:' -- "$word")); return ;;
    --profile) COMPREPLY=($(compgen -W 'sequential random archive' -- "$word")); return ;;
    --drop) COMPREPLY=($(compgen -W 'pagefile swapfile hiberfile swap' -- "$word")); return ;;
    --discard-granularity) COMPREPLY=($(compgen -W 'auto 64k keep' -- "$word")); return ;;
    --sector-size) COMPREPLY=($(compgen -W '512 4096' -- "$word")); return ;;
    --output) COMPREPLY=($(compgen -W 'human json' -- "$word")); return ;;
    --progress)
      if [ "${COMP_WORDS[COMP_CWORD-1]}" = "=" ] || [ "${COMP_WORDS[COMP_CWORD]}" = "=" ]; then
        COMPREPLY=($(compgen -W 'bar json none' -- "$word"))
        return
      fi ;;
    --bitmap | --block-size | --cluster-size | --connect | --connections | --count \
      | --create | --delete | --depth | --disk | --duration | --export | --filesystems | \
      --flush-interval | --ignore | --key | --max-length | --minimum-gain | --offset | --options | --pattern | \
      --rate-limit | --request-size | --requests | --retries | --rounds | --sample-size | --seed | --size | --snapshot \
      | --sparse | --start-offset | --step | --threads | --timeout | -m | -o) return ;;
  esac

  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -*) ;;
      *) name=${COMP_WORDS[i]}; break ;;
    esac
  done

  case $word in
    -*)
      COMPREPLY=($(compgen -W "$("$program" ${name:+"$name"} --help-all 2>/dev/null |
        sed -n 's/^  \(-., \|    \|\)\(--*[a-z-]*\).*/\1 \2/p' | tr -d ,)" -- "$word"))
      return ;;
  esac
  if [ -z "$name" ] || [ "$name" = help ]; then
    COMPREPLY=($(compgen -W "$("$program" --help 2>/dev/null |
      sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')" -- "$word"))
  else
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}

complete -F _virt_compact virt-compact
