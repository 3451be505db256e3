#!/usr/bin/env bash
# Installs what fovea needs to build and run on Debian 12, Debian 13 or Ubuntu 24.04.
#
# Libraries come from the distribution. The shader compiler and the Vulkan headers must know the
# cooperative-matrix extensions (glslang >= 15.1, headers >= 1.4.300); where the distribution's do
# not, those of its next release are unpacked into .deps/ with their own C runtime, and nothing of
# the system is replaced. Running it again costs a second: only what is missing is fetched.
set -euo pipefail

CONTENT=2  # raise when the content of .deps/ changes

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    echo "usage: scripts/setup.sh"
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
fi

cd "$(dirname "$(readlink -f "$0")")/.."
mkdir -p .deps/
DEPS=$(readlink -f .deps)
exec 9> "$DEPS/lock"
flock 9

libraries=(
    cmake ninja-build g++ clang-format file
    libfmt-dev libcli11-dev nlohmann-json3-dev libstb-dev libglm-dev libsqlite3-dev libwebp-dev
    libavcodec-dev libavformat-dev libavutil-dev libswscale-dev
    libgtest-dev libgmock-dev libbenchmark-dev
    libvulkan1 vulkan-tools vulkan-validationlayers mesa-vulkan-drivers
)
vulkan_headers=(libvulkan-dev spirv-headers libvulkan-volk-dev libvulkan-memory-allocator-dev)
shader_tools=(glslc spirv-tools)
layers=(vulkan-validationlayers)

die() { echo "setup: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

as_root() {
    if [[ $(id -u) == 0 ]]; then
        DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo > /dev/null; then
        sudo DEBIAN_FRONTEND=noninteractive "$@"
    else
        die "neither root nor sudo; please install: ${missing[*]}"
    fi
}

quietly() { "$@" > "$DEPS/log" 2>&1 || { tail -n 25 "$DEPS/log" >&2; die "failed: ${*:1:2} ..."; }; }
installed() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2> /dev/null) == ii* ]]; }
candidate() { apt-cache policy "$1" | sed -n 's/^ *Candidate: //p' | grep -v none || echo 0; }

update_once() {
    [[ -n ${updated:-} ]] && return
    say "reading package lists"
    quietly as_root apt-get update
    updated=1
}

# ---- where packages come from -------------------------------------------------------------------

source /etc/os-release
case $ID in
    debian) newer_suites=(trixie); components="main" ;;
    ubuntu) newer_suites=(resolute questing plucky); components="main universe" ;;
    *) die "written for Debian and Ubuntu, found $ID; see the package names at the top of $0" ;;
esac
KEYRING=/usr/share/keyrings/$ID-archive-keyring.gpg

# The mirror this machine already uses for its own release.
mirror() {
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$VERSION_CODENAME" '$1 == suite { print $2; exit }'
}

# private_apt NAME COMMAND...: apt with its own lists, so that the machine's sources stay as is.
# The sources are .deps/apt/NAME.list alone, or beside the machine's own (NAME = backports).
private_apt() {
    local name=$1 tool=$2 parts=/dev/null
    shift 2
    [[ $name == backports ]] && parts=/etc/apt/sources.list.d
    mkdir -p "$DEPS/apt/$name/partial" "$DEPS/apt/$name-debs/partial"
    "$tool" -o Dir::Etc::SourceList="$DEPS/apt/$name.list" -o Dir::Etc::SourceParts="$parts" \
        -o Dir::State::Lists="$DEPS/apt/$name" -o Dir::Cache="$DEPS/apt" \
        -o Dir::Cache::Archives="$DEPS/apt/$name-debs" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o APT::Keep-Downloaded-Packages=true "$@"
}

# ---- software Vulkan: Debian 12's own is too old to be a test device, its backport is not -------

install_backported_mesa() {
    say "installing mesa-vulkan-drivers from $VERSION_CODENAME-backports"
    mkdir -p "$DEPS/apt"
    {
        cat /etc/apt/sources.list 2> /dev/null || true
        echo "deb [signed-by=$KEYRING] $(mirror) $VERSION_CODENAME-backports main"
    } > "$DEPS/apt/backports.list"
    # A shell of its own, because sudo runs programs, not functions.
    quietly as_root bash -euc "DEPS='$DEPS'
        $(declare -f private_apt)
        private_apt backports apt-get update
        private_apt backports apt-get install -y --no-install-recommends \
            -t $VERSION_CODENAME-backports mesa-vulkan-drivers
        rm -rf '$DEPS/apt'"
}

# ---- the private toolchain ----------------------------------------------------------------------

# newer COMMAND...: apt for the next release, with an empty list of installed packages: it needs no
# root, and `install --download-only` fetches the tools with everything they run on.
newer() { private_apt newer "$@"; }

fetch_newer_packages() {
    local suite options=(-o Dir::State::Status=/dev/null -o Debug::NoLocking=1)
    for suite in "${newer_suites[@]}"; do
        rm -rf "$DEPS/apt/newer"
        echo "deb [signed-by=$KEYRING] $(mirror) $suite $components" > "$DEPS/apt/newer.list"
        newer apt-get "${options[@]}" update -o APT::Update::Error-Mode=any && break
        suite=
    done
    [[ -n $suite ]] || { echo "the mirror has none of: ${newer_suites[*]}"; return 1; }
    newer apt-get "${options[@]}" install -y --download-only --no-install-recommends \
        "${shader_tools[@]}" "${layers[@]}"
    cd "$DEPS/apt/newer-debs"
    newer apt-get "${options[@]}" download "${vulkan_headers[@]}"
}

# write_wrapper NAME PROGRAM [SETTING]: .deps/bin/NAME starts PROGRAM under the newer release's
# loader and C library.
write_wrapper() {
    local loader
    loader=$(cd "$DEPS/root" && find . -name 'ld-linux-*.so.*' -printf '%P\n' | head -n 1)
    cat > "$DEPS/bin/$1" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")/root
libraries=\$(echo "\$root"/usr/lib/*-linux-gnu)
${3:+export $3}
exec "\$root/$loader" --library-path "\$libraries" $2 "\$@"
WRAPPER
    chmod +x "$DEPS/bin/$1"
}

provision_toolchain() {
    say "fetching shader compiler and Vulkan headers of the next release into .deps/"
    rm -rf "$DEPS"/{root,bin,include,stamp}
    mkdir -p "$DEPS"/{apt,root,bin}
    quietly fetch_newer_packages
    local package
    for package in "$DEPS"/apt/newer-debs/*.deb; do dpkg -x "$package" "$DEPS/root"; done
    ln -s root/usr/include "$DEPS/include"
    local tool
    for tool in glslc spirv-val spirv-opt spirv-dis; do
        write_wrapper "$tool" "\"\$root/usr/bin/$tool\""
    done
    # `.deps/bin/run PROGRAM...` runs any program with the newer validation layers, which are bound
    # to the newer C library: the tests use it.
    write_wrapper run "" 'VK_LAYER_PATH="$root/usr/share/vulkan/explicit_layer.d"'
    "$DEPS/bin/glslc" --version > /dev/null || die "the unpacked glslc does not start"
    "$DEPS/bin/spirv-val" --version > /dev/null || die "the unpacked spirv-val does not start"
    rm -rf "$DEPS/apt"
    echo "$CONTENT" > "$DEPS/stamp"
}

# ---- main ---------------------------------------------------------------------------------------

[[ $(candidate libvulkan1) != 0 && -n $(mirror) ]] || update_once

at_least() { dpkg --compare-versions "$1" ge "$2"; }
if at_least "$(candidate glslang-tools)" 15.1 && at_least "$(candidate libvulkan-dev)" 1.4.300; then
    libraries+=("${vulkan_headers[@]}" "${shader_tools[@]}")
    private=0
else
    private=1
fi

mesa=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2> /dev/null || echo 0)
if [[ $ID == debian ]] && ! at_least "$mesa" 24 && ! at_least "$(candidate mesa-vulkan-drivers)" 24; then
    missing=(mesa-vulkan-drivers)
    update_once
    install_backported_mesa
fi

missing=()
for package in "${libraries[@]}"; do installed "$package" || missing+=("$package"); done
if (( ${#missing[@]} )); then
    update_once
    say "installing ${missing[*]}"
    quietly as_root apt-get install -y --no-install-recommends "${missing[@]}"
fi

if (( private )) && [[ $(cat "$DEPS/stamp" 2> /dev/null) != "$CONTENT" ]]; then
    provision_toolchain
    say "done"
fi
