# shellcheck shell=bash
# What the scripts in this folder share: where things are, how a step is told, and how a Debian package is
# installed. Sourced, never run.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# LAYOVER_ENGINES_DIR lets a test install into a scratch folder.
ENGINES="${LAYOVER_ENGINES_DIR:-$ROOT/.engines}"
export ROOT ENGINES
# Ours comes last: what the user already has wins. The sbin folders hold dockerd, runc and iptables on Debian and
# are not on every user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$ENGINES/bin"

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# version_at_least HAVE WANT: dotted numbers, so that 1.9 is older than 1.21.
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# quietly LOG COMMAND...: runs it with its output in LOG, and shows the end of that only when it fails.
quietly() {
    local log="$1"
    shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        return 1
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        say "this needs root: $*" >&2
        return 1
    fi
}

# apt_update reads the package lists once a run, and only when a package is wanted.
APT_UPDATED=
apt_update() {
    [ -z "$APT_UPDATED" ] || return 0
    say "apt: reading the package lists"
    quietly "$ENGINES/log/apt-update.log" as_root apt-get update -o DPkg::Lock::Timeout=300 || return 1
    APT_UPDATED=yes
}

# apt_has PACKAGE: whether the configured sources offer it.
apt_has() {
    have apt-cache || return 1
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

# apt_install PACKAGE...: from the configured sources; ends the script with what to do when it cannot.
apt_install() {
    have apt-get || die "this system has no apt-get, so these cannot be installed here: $*" \
        "Install what they hold with your own package manager and run this again: whatever is on the PATH is used."
    apt_update || die "apt-get update failed" "See $ENGINES/log/apt-update.log; is the network up, are you root?"
    say "apt: installing $*"
    quietly "$ENGINES/log/apt-install.log" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" ||
        die "apt-get could not install $*" "See $ENGINES/log/apt-install.log. By hand: sudo apt-get install $*"
}

# static_busybox prints the path of a busybox that needs no libraries, so that it runs in an image of its own.
static_busybox() {
    local candidate
    for candidate in "$ENGINES/bin/busybox" "$(command -v busybox || true)"; do
        [ -x "$candidate" ] || continue
        # ldd ends with an error for a program without a dynamic section, which is what is looked for.
        if ! LC_ALL=C ldd "$candidate" >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

have_buildx() { have buildx || have docker-buildx || { have docker && docker buildx version >/dev/null 2>&1; }; }
