# Functions that the scripts in this folder share.  They source this file; `script` is the name to show.
set -euo pipefail

# The checkout, also when a script is called through a symbolic link.
root=$(dirname "$(dirname "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# mke2fs and debugfs are in /usr/sbin or /sbin, which are not in the PATH of an ordinary user.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$*" >&2; }
die() {
  printf '%s: error: %s\n' "$script" "$*" >&2
  exit 1
}

# Prints the comment at the top of the script, which is its help.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$root/$script"
}

# quietly LOG COMMAND…: runs the command, and shows its output only if it fails.  The command gets no
# input, because standard input belongs to the program that the user runs.
quietly() {
  local log=$1 status=0
  shift
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || cat -- "$log" >&2
  return "$status"
}

# build FOLDER TARGET MESON-ARGUMENTS…: sets up root/FOLDER, unless it was set up with these arguments,
# and builds.  If several scripts run at the same time, they build one after the other.
# `-Dtests=enabled` adds the tests to a folder that was set up without Catch2, and keeps existing files.
build() (
  local folder=$root/$1 target=$2 argument tests=
  shift 2
  local -a settings=()
  for argument in "$@"; do
    if [ "$argument" = -Dtests=enabled ]; then tests=$argument; else settings+=("$argument"); fi
  done
  exec 9<"$root/scripts"
  flock 9
  mkdir -p "$folder" 2>/dev/null || true
  [ -w "$folder" ] || die "$folder cannot be written"

  # After the checkout was moved, the folder is set up again, because build files contain absolute
  # names.  A folder without our mark was set up by hand, and keeps its settings.
  local mark=$folder/set-up-for wanted
  wanted=$(printf '%s\n' "$root" "${CXX-}" "${settings[@]}")
  if [ -e "$folder/build.ninja" ] && [ -e "$mark" ] && [ "$(<"$mark")" != "$wanted" ]; then
    rm -rf -- "$folder"
    mkdir -p "$folder"
  fi
  if [ ! -e "$folder/build.ninja" ]; then
    say "$script: building in ${folder##*/}/ for the first time; this takes a minute or more"
    quietly "$folder/setup.log" meson setup "$@" "$folder" "$root" || die "cannot set up $folder"
    printf '%s\n' "$wanted" >"$mark"
  elif [ -n "$tests" ] && [ ! -e "$folder/has-tests" ]; then
    quietly "$folder/setup.log" meson setup --reconfigure "$tests" "$folder" "$root" ||
      die "cannot set up the tests in $folder"
  fi
  [ -z "$tests" ] || touch "$folder/has-tests"
  quietly "$folder/build.log" ninja -C "$folder" $target || die "the build in $folder failed"

  # With sudo, new files must belong to the owner of the checkout.
  local owner
  owner=$(stat -c %u:%g -- "$root")
  if [ "$EUID" = 0 ] && [ "${owner%%:*}" != 0 ]; then
    chown -R -- "$owner" "$folder" 2>/dev/null || true
  fi
)
