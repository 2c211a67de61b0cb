# shellcheck shell=bash
# Cargo subcommands that the checks need, in pinned versions, under .local/tools: nothing is put into
# the user's own cargo.

tools_dir=$root/.local/tools

# require_tool NAME VERSION OPTION…: built if that version is not there yet. Unoptimised, because
# each runs for seconds and building it takes minutes.
require_tool() {
    local name=$1 version=$2 stamp=$tools_dir/$1.version
    shift 2
    [[ $(cat "$stamp" 2>/dev/null) != "$version" ]] || return 0
    say "building $name $version (once, a few minutes)"
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tools_dir/target \
        cargo install --quiet --locked --debug --force --root "$tools_dir" \
        --version "$version" "$name" "$@" </dev/null
    printf '%s\n' "$version" >"$stamp"
    # What was compiled on the way is of no more use; the other tool shares next to nothing with it.
    rm -rf "$tools_dir/target"
}
