# What the scripts beside this file share.  They source it; `script` is what the user calls them.
set -euo pipefail

# The checkout, also when a script is called through a symbolic link.
root=$(dirname "$(dirname "$(readlink -f -- "${BASH_SOURCE[0]}")")")
# Debian keeps mke2fs and debugfs where a plain user's PATH does not look.
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

# quietly LOG COMMAND…: the command's output is shown only if it fails.  It gets no input: that is
# for the program that the user wants to run.
quietly() {
  local log=$1 status=0
  shift
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || cat -- "$log" >&2
  return "$status"
}

# build FOLDER TARGET MESON-ARGUMENTS…: sets up root/FOLDER if that has not been done with these
# arguments, and builds.  Runs of the scripts at the same time wait for each other here.
# `-Dtests=enabled` adds the tests to a folder that was set up without Catch2, and what is built stays.
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

  # A checkout that was moved has to be set up again: the build files hold absolute names.  A folder
  # without our mark was set up by hand, and its settings are the user's.
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

  # sudo must not leave files in a user's checkout that the user cannot replace.
  local owner
  owner=$(stat -c %u:%g -- "$root")
  if [ "$EUID" = 0 ] && [ "${owner%%:*}" != 0 ]; then
    chown -R -- "$owner" "$folder" 2>/dev/null || true
  fi
)
