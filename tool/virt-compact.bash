# Bash completion of virt-compact. Commands and options come from the installed command's own help,
# so they match its version.
#
# The completions for zsh and fish run this file as a program: see the end.

# Offers those of the words after the second argument that begin with the second argument. Prepends
# the first argument to each.
_virt_compact_offer()
{
  local prefix=$1 begin=$2 it
  shift 2
  for it; do
    case $it in "$begin"*) COMPREPLY+=("$prefix$it") ;; esac
  done
}

# Offers the last element of a comma list. bash replaces `word`; `list` is the whole list so far.
_virt_compact_list()
{
  local part=${list##*,}
  _virt_compact_offer "${word%"$part"}" "$part" "$@"
}

# Offers KEY=VALUE,… as after -o.
_virt_compact_creation()
{
  local part=${list##*,} value
  compopt -o nospace 2>/dev/null
  case $part in
    *=*) value=${part#*=} ;;
    *)
      _virt_compact_offer "${word%"$part"}" "$part" compat= cluster_size= refcount_bits= \
        extended_l2= lazy_refcounts= preallocation= compression_type= compression_level= \
        backing_file= backing_fmt= data_file= data_file_raw= encrypt.format= encrypt.key-secret= \
        encrypt.cipher-alg= encrypt.cipher-mode= encrypt.ivgen-alg= encrypt.ivgen-hash-alg= \
        encrypt.hash-alg= encrypt.iter-time=
      return ;;
  esac
  set --
  case ${part%%=*} in
    compat) set -- 0.10 1.1 ;;
    cluster_size) set -- 4k 16k 32k 64k 128k 256k 512k 1M 2M ;;
    refcount_bits) set -- 1 2 4 8 16 32 64 ;;
    extended_l2 | lazy_refcounts | data_file_raw) set -- on off ;;
    preallocation) set -- off metadata falloc full ;;
    compression_type) set -- zlib zstd ;;
    encrypt.format) set -- luks ;;
    encrypt.cipher-alg)
      set -- aes-128 aes-192 aes-256 serpent-128 serpent-192 serpent-256 twofish-128 twofish-256 cast5-128 ;;
    encrypt.cipher-mode) set -- xts cbc ctr ecb ;;
    encrypt.ivgen-alg) set -- plain64 plain essiv ;;
    encrypt.hash-alg | encrypt.ivgen-hash-alg) set -- sha256 sha512 sha384 sha224 sha1 ripemd160 md5 ;;
    backing_fmt) set -- qcow2 raw ;;
    backing_file | data_file) local IFS=$'\n'; set -- $(compgen -f -- "$value") ;;
  esac
  _virt_compact_offer "${word%"$value"}" "$value" "$@"
}

# Offers the snapshot names of the disk on the command line.
_virt_compact_snapshots()
{
  local it names
  for it in "${COMP_WORDS[@]:2}"; do
    it=${it#[\"\']} it=${it%[\"\']}
    [ -f "$it" ] || continue
    # Skips names with characters that JSON escapes.
    mapfile -t names < <("$program" snapshot -U -l --output=json "$it" 2>/dev/null |
      sed -n 's/^ *"name": "\([^"\\]*\)",*$/\1/p' |
      while read -r i; do printf "${_virt_compact_form:-%q}\n" "$i"; done)
    _virt_compact_offer "" "$word" "${names[@]}"
    return
  done
}

# Offers domain names, if libvirt can be queried.
_virt_compact_domains()
{
  local names
  command -v virsh >/dev/null || return 0
  mapfile -t names < <(timeout 2 virsh -q list --all --name 2>/dev/null | sed '/^$/d')
  _virt_compact_offer "" "$word" "${names[@]}"
}

# Offers hidden files only if the word begins with a dot.
_virt_compact_files()
{
  local it files
  compopt -o filenames 2>/dev/null
  _virt_compact_takes_files=yes
  mapfile -t files < <(compgen -f -- "$word")
  for it in "${files[@]}"; do
    case ${word##*/} in
      .*) ;;
      *) case ${it##*/} in .*) continue ;; esac ;;
    esac
    COMPREPLY+=("$it")
  done
}

_virt_compact()
{
  local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before= name= list= i
  COMPREPLY=()
  # If "=" breaks words, "--color=al" is three words, and "-o a=b,c=d" is six.
  [ "$word" = "=" ] && word=
  i=$COMP_CWORD
  list=${COMP_WORDS[i]}
  while [ "$i" -gt 1 ] && { [ "${COMP_WORDS[i]}" = "=" ] || [ "${COMP_WORDS[i-1]}" = "=" ]; }; do
    case ${COMP_WORDS[i-1]} in -*) break ;; esac
    i=$((i - 1))
    list=${COMP_WORDS[i]}$list
  done
  [ "$i" -gt 0 ] && before=${COMP_WORDS[i-1]}
  case $list in =*) list=${list#=} ;; esac
  [ "$before" = "=" ] && before=${COMP_WORDS[i-2]}

  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -*) ;;
      *) name=${COMP_WORDS[i]}; break ;;
    esac
  done

  # Options with a different meaning in different commands.
  case $name:$before in
    check:-r | check:--repair) _virt_compact_offer "" "$word" leaks all; return ;;
    copy:-o | copy:--options | measure:-o | measure:--options | optimize:--options)
      _virt_compact_creation; return ;;
    optimize:-o | optimize:--output) _virt_compact_files; return ;;
    snapshot:-d | snapshot:--delete | snapshot:-a | snapshot:--apply | snapshot:--export | \
      copy:--snapshot | copy:-l | measure:--snapshot | measure:-l)
      _virt_compact_snapshots; return ;;
    check:-T | compare:-T | copy:-T | copy:-t | bench:-t)
      _virt_compact_offer "" "$word" none directsync writeback writethrough unsafe; return ;;
    snapshot:-c | tune:-c | bench:-[cdsSo] | map:-[sl] | copy:-[rS] | punch:-S) return ;;
  esac
  case $before in
    -f | --format | -O | --output-format | -F | --backing-format | --second-format)
      _virt_compact_offer "" "$word" qcow2 raw; return ;;
    --cache) _virt_compact_offer "" "$word" none directsync writeback writethrough unsafe keep; return ;;
    --reflink) _virt_compact_offer "" "$word" auto always never; return ;;
    --detect-zeroes) _virt_compact_offer "" "$word" unmap on off keep; return ;;
    --discard) _virt_compact_offer "" "$word" unmap ignore keep; return ;;
    --io) _virt_compact_offer "" "$word" native threads io_uring keep; return ;;
    --backing)
      _virt_compact_offer "" "$word" owner follow deny none
      _virt_compact_files
      return ;;
    --data-file) _virt_compact_offer "" "$word" owner follow deny; return ;;
    --limits) _virt_compact_list size= ratio= snapshots= bitmaps= time=; return ;;
    --discard-granularity) _virt_compact_offer "" "$word" auto 64k keep; return ;;
    --trim) _virt_compact_offer "" "$word" auto metadata appliance none; return ;;
    --sector-size) _virt_compact_offer "" "$word" 512 4096; return ;;
    --color) _virt_compact_offer "" "$word" auto always never; return ;;
    --compression) _virt_compact_offer "" "$word" none zstd zstd: zlib zlib:; return ;;
    --profile) _virt_compact_offer "" "$word" sequential random archive; return ;;
    --drop) _virt_compact_list pagefile swapfile hiberfile shadows swap; return ;;
    --output) _virt_compact_offer "" "$word" human json; return ;;
    --drop-snapshots)
      if [ "${COMP_WORDS[COMP_CWORD-1]}" = "=" ] || [ "${COMP_WORDS[COMP_CWORD]}" = "=" ]; then
        _virt_compact_snapshots
        return
      fi ;;
    --progress)
      if [ "${COMP_WORDS[COMP_CWORD-1]}" = "=" ] || [ "${COMP_WORDS[COMP_CWORD]}" = "=" ]; then
        _virt_compact_offer "" "$word" bar json none
        return
      fi ;;
    --bitmap | --block-size | --cluster-size | --connect | --connections | --count \
      | --create | --convert | --depth | --disk | --duration | --filesystems \
      | --flush-interval | --ignore | --key | --max-length | --minimum-gain | --node | --object | --offset | --pattern \
      | --rate-limit | --request-size | --requests | --reserve | --retries | --rounds | --sample-size | --seed | --size \
      | --sparse | --start-offset | --step | --threads | -m) return ;;
  esac

  case $word in
    -*)
      COMPREPLY=($(compgen -W "$("$program" ${name:+"$name"} --help-all 2>/dev/null |
        sed -n 's/^  \(-., \|    \|\)\(--*[a-zA-Z-]*\).*/\1 \2/p' | tr -d ,)" -- "$word"))
      return ;;
  esac
  if [ -z "$name" ] || [ "$name" = help ]; then
    COMPREPLY=($(compgen -W "$("$program" --help-all 2>/dev/null |
      sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')" -- "$word"))
    return
  fi
  _virt_compact_files
  case "$name ${COMP_WORDS[*]} " in
    tune*" --guest "* | optimize*" --qmp"[\ =]*) ;;
    tune* | optimize*" --live "*) _virt_compact_domains ;;
  esac
  return 0
}

# Usage: bash FILE --offer WORD...: prints what can replace the last word of this command line, one a
# line, with a tab and a description if there is one. Prints a line with only a slash if the word can be
# the name of a file.
_virt_compact_print()
{
  local begin='' it name='' options='' i _virt_compact_form=%s _virt_compact_takes_files=
  COMP_WORDS=("$@")
  COMP_CWORD=$(($# - 1))
  local word=${COMP_WORDS[COMP_CWORD]}
  case $word in
    --*=*)
      begin=${word%%=*}=
      COMP_WORDS[COMP_CWORD]=${word%%=*}
      COMP_WORDS+=("=" "${word#*=}")
      COMP_CWORD=$((COMP_CWORD + 2))
      ;;
  esac
  for ((i = 1; i < $# - 1; i++)); do
    case ${COMP_WORDS[i]} in
      -*) ;;
      *) name=${COMP_WORDS[i]}; break ;;
    esac
  done
  _virt_compact
  # Files are completed by the other shell, except in lists.
  if [ -n "$_virt_compact_takes_files" ]; then
    echo /
    local kept=()
    for it in "${COMPREPLY[@]}"; do [ -e "$it" ] || kept+=("$it"); done
    COMPREPLY=("${kept[@]}")
  fi
  [ ${#COMPREPLY[@]} -gt 0 ] || return 0
  local -A descriptions=()
  if [ -z "$begin" ]; then
    while IFS=$'\t' read -r it options; do
      descriptions[$it]=$options
    done < <("${COMP_WORDS[0]}" ${name:+"$name"} --help-all 2>/dev/null | sed -n '
      s/^  \([a-z][a-z]*\)  *\(.*\)/\1\t\2/p
      /^ \{2,6\}-/!d
      h
      s/^  \(-.\)[ ,].\{21\}  *\(.*\)/\1\t\2/p
      g
      s/^ [^=]\{1,5\}\(--[a-zA-Z-]*\).*/\1/; T; G
      s/\n.\{26\} */\t/p')
  fi
  for it in "${COMPREPLY[@]}"; do
    printf '%s%s%s\n' "$begin" "$it" "${descriptions[$it]:+$'\t'${descriptions[$it]}}"
  done
}

if [ "${1-}" = --offer ] && [ "${BASH_SOURCE[0]}" = "$0" ]; then
  shift
  _virt_compact_print "$@"
else
  complete -F _virt_compact virt-compact
fi
