# shellcheck shell=bash
# What the local stack needs from the system, and how to get it. Only Rust is expected to be there.

# Each check prints nothing and succeeds if the thing is there.
needs=(postgres java mvn compiler curl flock)
has_postgres() { postgres_bindir >/dev/null; }
has_java() { java_new_enough; }
# Maven only fetches Kafka, so it may be gone again afterwards.
has_mvn() { kafka_libs_current || have mvn; }
# librdkafka and ring are C, built by cargo.
has_compiler() { have cc && have c++ && have make; }
has_curl() { have curl; }
has_flock() { have flock && have setsid; }
# Only the benchmark asks for it, and adds it to the needs.
has_wrk() { have wrk; }

# package NAME MANAGER: what to install for a need.
package() {
    case $2:$1 in
        apt:postgres) echo postgresql ;;
        apt:java) apt_java_package ;;
        apt:mvn) echo maven ;;
        apt:compiler) echo build-essential ;;
        apt:flock) echo util-linux ;;
        dnf:postgres) echo postgresql-server ;;
        dnf:java) echo java-21-openjdk-headless ;;
        dnf:mvn) echo maven ;;
        dnf:compiler) echo gcc gcc-c++ make ;;
        dnf:flock) echo util-linux ;;
        pacman:postgres) echo postgresql ;;
        pacman:java) echo jre21-openjdk-headless ;;
        pacman:mvn) echo maven ;;
        pacman:compiler) echo base-devel ;;
        pacman:flock) echo util-linux ;;
        brew:postgres) echo postgresql@17 ;;
        brew:java) echo openjdk@21 ;;
        brew:mvn) echo maven ;;
        brew:compiler) echo gcc make ;;
        brew:flock) echo util-linux ;;
        *) echo "$1" ;;
    esac
}

# apt_java_package: the newest long-term release that this system's lists have.
apt_java_package() {
    local version
    for version in 21 17; do
        # Not `apt-cache show`, which also knows packages that are only mentioned by others.
        if apt-cache policy "openjdk-$version-jre-headless" | grep -q 'Candidate: [0-9]'; then
            echo "openjdk-$version-jre-headless"
            return
        fi
    done
    echo default-jre-headless
}

missing_needs() {
    local need
    for need in "${needs[@]}"; do
        "has_$need" || echo "$need"
    done
}

# require_prerequisites: installs what is missing, or says what to install and ends.
require_prerequisites() {
    local missing
    [[ $(uname -s) == Linux ]] ||
        die "without a container engine the stack runs on Linux only: install Docker, start it, and run this again"
    have cargo || die "Rust is missing: install rustup (https://rustup.rs), then run this again"
    mapfile -t missing < <(missing_needs)
    ((${#missing[@]} > 0)) || return 0
    say "missing: ${missing[*]}"
    if have apt-get && become_root true 2>/dev/null; then
        apt_install "${missing[@]}" || warn "apt-get did not succeed (the lines above say why)"
    else
        say_what_to_install "${missing[@]}"
    fi
    mapfile -t missing < <(missing_needs)
    ((${#missing[@]} == 0)) || die_still_missing "${missing[@]}"
}

# become_root COMMAND…: fails rather than asks for a password.
become_root() {
    if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    local packages need
    become_root apt-get -q update </dev/null || return
    packages=()
    for need in "$@"; do
        packages+=("$(package "$need" apt)")
    done
    say "installing ${packages[*]}"
    without_main_cluster become_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=300 install --no-install-recommends "${packages[@]}" </dev/null
}

# without_main_cluster COMMAND…: Debian's package makes a server of its own and starts it when it is
# installed. Nobody here needs it, so for as long as the command runs it is told not to.
without_main_cluster() {
    local conf=/etc/postgresql-common/createcluster.d/postonce.conf status=0
    become_root mkdir -p "${conf%/*}"
    echo 'create_main_cluster = false' | become_root tee "$conf" >/dev/null
    # Left behind by an interruption, it would follow the user's next installation too.
    trap 'become_root rm -f /etc/postgresql-common/createcluster.d/postonce.conf' EXIT
    "$@" || status=$?
    become_root rm -f "$conf"
    trap - EXIT
    return "$status"
}

# say_what_to_install NEED…: in the words of the package manager that is there.
say_what_to_install() {
    local manager need packages=()
    local -A commands=([apt]='sudo apt-get install' [dnf]='sudo dnf install'
        [pacman]='sudo pacman -S' [brew]='brew install')
    for manager in apt dnf pacman brew none; do
        if have "${manager/apt/apt-get}"; then break; fi
    done
    [[ $manager != none ]] || die_still_missing "$@"
    for need in "$@"; do
        packages+=("$(package "$need" "$manager")")
    done
    die "this cannot be installed from here (no root, no sudo without a password, or no apt-get).
Install it, then run the same command again:
    ${commands[$manager]} ${packages[*]}"
}

die_still_missing() {
    die "still missing: $*. Needed are the server programs of PostgreSQL $postgres_version_min or newer, Java
$java_version_min or newer, Maven, a C and a C++ compiler, make, curl, flock and setsid (util-linux);
for the benchmark wrk too.
Install what is missing by hand, then run the same command again."
}
