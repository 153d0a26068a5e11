#!/bin/bash
# Installs what the tests and `make try` need, from the distribution's own archive; Debian 12 or later, as root.
# Nothing that is already there is touched, so that a second run takes a fraction of a second.
#   packages.sh           install what is missing
#   packages.sh --list    print what is missing, change nothing; 1 when something is
set -euo pipefail

packages=(
  # the build: a linker for Rust and a C compiler for its dependencies
  make gcc libc6-dev pkg-config git ca-certificates
  # the services that the tests talk to
  docker.io docker-registry skopeo umoci iptables iproute2 apache2-utils openssh-server openssh-client
  # the test machine and the demonstration images
  mmdebstrap debian-archive-keyring gpgv gnupg qemu-system-x86 busybox-static e2fsprogs xz-utils zstd
  ovmf fdisk dosfstools mtools erofs-utils
  # another user and another clock for image builds
  uidmap libfaketime
  # signatures of kernel modules
  openssl
  # what tests and benchmarks compare with or read with
  jq curl nix-bin hyperfine procps nginx-light
  # reports: their schema, and their page in a browser
  python3-jsonschema chromium-headless-shell
  # lints
  shellcheck
)
# A newer qemu-img from backports may be there already and would conflict with this release's package.
command -v qemu-img >/dev/null || packages+=(qemu-utils)

have=$(dpkg-query -W -f '${db:Status-Abbrev}|${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^.i .*|//p' || true)
missing=()
for package in "${packages[@]}"; do
  grep -qx -- "$package" <<<"$have" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "${1-}" = --list ]; then
  printf '%s\n' "${missing[@]}"
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "packages.sh: these packages are missing and installing them needs root: ${missing[*]}" >&2
  echo "hint: sudo $0" >&2
  exit 1
fi

# The tests start their own services on loopback. None of these packages may start one that listens elsewhere
# (Debian's registry listens on every address), so service starts are refused while they are installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi

echo "packages.sh: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0)
log=$(mktemp)
# This release's qemu-system-x86 removes a qemu-img of another release.
tools() { command -v qemu-img >/dev/null || "${install[@]}" qemu-utils; }
if ! { apt-get update -qq && "${install[@]}" "${missing[@]}" && tools; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "packages.sh: installing the packages above failed" >&2
  exit 1
fi
rm -f "$log"
