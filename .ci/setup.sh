# Shared by .ci/demo and .ci/test; sourced, never run.  Sets up system packages and a
# virtual environment outside the checkout.  What is there already is not touched, so
# that a second run needs no network.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vsssnap
# Debian keeps mkfs and losetup out of the PATH of ordinary users.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# wanted_packages demo|test: the package names of .ci/packages.txt.
wanted_packages() {
    awk -v who="$1" '!/^#/ && NF && (who == "test" || $2 == who) { print $1 }' "$top/.ci/packages.txt"
}

# missing_packages demo|test: those not installed, as dpkg knows it.
missing_packages() {
    local name
    for name in $(wanted_packages "$1"); do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s ' "$name"
    done
}

# install_packages demo|test: installs what is missing when root, else says what to do.
install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "no apt here: install what .ci/packages.txt lists ($(wanted_packages "$1" | tr '\n' ' ')) by your own means"
        return 0
    fi
    local missing
    missing=$(missing_packages "$1")
    # A Python from elsewhere serves as well as Debian's.
    if find_python >/dev/null; then
        missing=$(printf '%s\n' $missing | grep -v -x -e python3 -e python3-venv | tr '\n' ' ')
    fi
    [ -n "${missing// /}" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "not root, so these are not installed: $missing- run 'apt-get install $missing' as root for the parts that need them"
        return 0
    fi
    say "installing $missing"
    if [[ " $missing" == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
        # The tests make their own clusters; the package must not start one on port 5432.
        mkdir -p /etc/postgresql-common
        printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
    fi
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    local log=$cache/apt.log
    mkdir -p "$cache"
    # shellcheck disable=SC2086 # a list of names
    { apt-get -q -o DPkg::Lock::Timeout=300 update &&
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold \
            install --no-install-recommends $missing; } </dev/null >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "apt-get could not install: $missing(all of it in $log)"; }
}

# find_python: prints a Python that is new enough and can make virtual environments.
find_python() {
    local candidate
    for candidate in ${VSSSNAP_PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

require_python() {
    python=$(find_python) ||
        die "no Python 3.11 or later with venv: install python3 and python3-venv (Debian 12, Ubuntu 24.04 or later have them), or name one in VSSSNAP_PYTHON"
}

# digest FILE...: one number for the content of files.
digest() { cat -- "$@" | sha256sum | cut -c1-16; }

# python_key: two Pythons of one version in different places do not share an environment.
python_key() { "$python" -c 'import hashlib, os, sys; print("%d.%d.%d-" % sys.version_info[:3] + hashlib.sha256(os.path.realpath(sys.executable).encode()).hexdigest()[:8])'; }

# make_venv FOLDER REQUIREMENT...: an environment with the packages, built once.  The
# stamp is written last, so that a broken-off attempt is begun again.
make_venv() {
    local folder=$1
    shift
    mkdir -p "$(dirname "$folder")"
    exec 9>"$folder.lock"
    flock 9
    if [ ! -e "$folder/.complete" ]; then
        say "making the Python environment $folder"
        rm -rf "$folder"
        "$python" -m venv "$folder" || die "venv failed: install python3-venv"
        "$folder/bin/python" -m pip install -qq "$@" </dev/null ||
            die "pip could not install what is needed (network?); run the same command again"
        touch "$folder/.complete"
    fi
    exec 9>&-
}

# requirements EXTRA...: the dependencies of pyproject.toml with these extras, one a line.
requirements() {
    "$python" - "$top/pyproject.toml" "$@" <<'PY'
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    document = tomllib.load(file)
project = document["project"]
pending, wanted = list(sys.argv[2:]), [*project["dependencies"], *document["build-system"]["requires"]]
while pending:
    for requirement in project["optional-dependencies"][pending.pop()]:
        own = re.fullmatch(project["name"] + r"\[(.*)\]", requirement)
        if own:
            pending += own[1].split(",")
        else:
            wanted.append(requirement)
print("\n".join(dict.fromkeys(wanted)))
PY
}
