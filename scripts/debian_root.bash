# Functions that make a root filesystem of a Debian release, and run commands in it.  Scripts source this
# file after lib.bash, and set `suite`, `folder` (empty: a temporary one) and `keep` (not empty: the
# folder is not removed).

mark=etc/virt-compact-test-root

# Checks the user's folder, before anything is installed or changed.
check_folder() {
  if [ -n "$folder" ] && [ -e "$folder/$mark" ]; then
    [ "$(<"$folder/$mark")" = "$suite" ] ||
      die "$folder holds a root of Debian $(<"$folder/$mark"), not $suite"
  elif [ -n "$folder" ] && [ -n "$(ls -A -- "$folder" 2>/dev/null)" ]; then
    die "$folder is not empty, and holds no root that a run of this script has completed"
  fi
}

# Commands that mount run in a mount namespace and a process namespace of their own.  Both end with their
# first process.
inside=
# isolated COMMAND…: must be called in the background.  Processes that may outlive this one do not inherit
# the lock.
isolated() {
  exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc -- "$@" 8<&-
}
# Waits for the command that was started last.
attend() {
  local status=0
  inside=$!
  wait "$inside" || status=$?
  inside=
  return "$status"
}
stop_inside() {
  [ -n "$inside" ] || return 0
  pkill -KILL -P "$inside" || true
  wait "$inside" || true
  inside=
}
log=
finish_root() {
  stop_inside
  rm -f -- "$log"
  if [ -n "$keep" ]; then
    say "$script: the root is in $folder"
  else
    # Its mounts were never in our namespace.  A mount of another process is not removed.
    rm -rf --one-file-system -- "$folder"
  fi
}

# Makes the folder, locks it, and makes a root in it, unless there is one.  Sets traps.
open_root() {
  if [ -z "$folder" ]; then
    folder=$(mktemp -d "${TMPDIR:-/var/tmp}/virt-compact-$suite-XXXXXX")
  else
    keep=yes
    mkdir -p -- "$folder"
    folder=$(readlink -e -- "$folder")
  fi
  # Users other than root must be able to enter the root filesystem, too.
  chmod 755 -- "$folder"
  log=$(mktemp)
  trap finish_root EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  exec 8<"$folder"
  flock -n 8 || die "another run uses $folder"
  [ -e "$folder/$mark" ] || make_root
}

# Prints "URI SUITE" for each Debian archive that apt of this system uses, with SUITE instead of the
# release of this system.
archives() {
  local here uri release
  here=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  [ -n "$here" ] || return 0
  apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT) $(CREATED_BY)' |
    while read -r uri release origin; do
      case $origin:$release in
        'Debian main Packages:'"$here" | 'Debian main Packages:'"$here"-updates | \
          'Debian main Packages:'"$here"-security)
          printf '%s %s\n' "$uri" "$suite${release#"$here"}"
          ;;
      esac
    done | sort -u
}

# The settings of this system's apt that control how archives are reached.
http_settings() {
  apt-config dump --no-empty |
    grep -E '^Acquire::(https?::|Retries|ForceIPv|Check-(Date|Valid-Until))' || true
}

make_root() {
  local list proxy_http='' proxy_https='' mirror
  list=$(archives)
  if [ -z "$list" ]; then
    # The lists that apt has fetched say which archive is Debian's.
    apt-get -q update >/dev/null 2>&1 || true
    list=$(archives)
  fi
  mirror=$(sed -n "s/ $suite\$//p" <<<"$list" | head -n 1)
  eval "$(apt-config shell proxy_http Acquire::http::Proxy proxy_https Acquire::https::Proxy)"
  [ -z "$proxy_http" ] || [ "$proxy_http" = DIRECT ] || export http_proxy=$proxy_http
  [ -z "$proxy_https" ] || [ "$proxy_https" = DIRECT ] || export https_proxy=$proxy_https

  say "$script: making a root of Debian $suite in $folder"
  isolated debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    "$suite" "$folder" ${mirror:+"$mirror"} >"$log" 2>&1 </dev/null &
  if ! attend; then
    cat -- "$log" >&2
    die "cannot make a root of Debian $suite"
  fi
  if [ -n "$list" ]; then
    sed 's/^/deb /; s/$/ main/' <<<"$list" >"$folder/etc/apt/sources.list"
  fi
  http_settings >"$folder/etc/apt/apt.conf.d/99-virt-compact"
  # Packages must not start their services in the root.
  printf '#!/bin/sh\nexit 101\n' >"$folder/usr/sbin/policy-rc.d"
  chmod 755 "$folder/usr/sbin/policy-rc.d"
  echo "$suite" >"$folder/$mark"
}

# enter COMMAND…: runs the command in the root, as isolated does.  The folder becomes the root of the mount
# namespace: in a mere chroot, the kernel permits no user namespace, and "/" is no mount whose propagation
# a test could change.
enter() {
  isolated bash -c '
    set -e
    folder=$1
    shift
    mount --bind -- "$folder" "$folder"
    mount -t proc proc "$folder/proc"
    mount --rbind /sys "$folder/sys"
    mount --rbind /dev "$folder/dev"
    cd -- "$folder"
    # The old root then lies on the new one.
    pivot_root . .
    umount -l .
    cd /
    exec "$@"
  ' bash "$folder" env -i "${environment[@]}" "$@"
}
environment=(
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
  DEBIAN_FRONTEND=noninteractive "TERM=${TERM:-dumb}" CCACHE_DIR=/root/ccache CCACHE_NOHASHDIR=1
)
