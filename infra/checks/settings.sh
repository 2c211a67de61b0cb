#!/usr/bin/env bash
# .env.example must name exactly the settings that the services' --help name, and show the default of
# those that have the same one everywhere.
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

cd "$root"
example=.env.example

# help_settings PROGRAM ARGUMENT…: "NAME default" a line, from clap's "[env: NAME=] [default: value]".
help_settings() {
    # A clean environment: --help shows the values that are set.
    env -i PATH="$PATH" HOME="$HOME" "target/debug/$1" "${@:2}" --help | tr -s ' \n' ' ' |
        grep -oE '\[env: [A-Z0-9_]+=?\]( \[default: [^]]*\])?' |
        sed -E 's/^\[env: ([A-Z0-9_]+)=?\]( \[default: ([^]]*)\])?$/\1 \3/'
}

all_settings() {
    help_settings api
    help_settings api migrate
    help_settings publisher
    help_settings worker
}

# example_settings: an assignment, or one behind a comment sign, is a setting that is named.
example_settings() { sed -nE 's/^#? ?([A-Z][A-Z0-9_]*)=(.*)$/\1 \2/p' "$example"; }

names() { cut -d' ' -f1 | sort -u; }

SQLX_OFFLINE=true cargo build --quiet --locked --bins
settings=$(all_settings | sort -u)
diff -u --label "$example" --label '--help' <(example_settings | names) <(names <<<"$settings") ||
    die "$example and --help name different settings"

# Those settings of which there is one line only, that is, one default, and which show it.
shared=$(awk '{ lines[$1]++; text[$1] = $0; shown[$1] = NF > 1 }
    END { for (name in lines) if (lines[name] == 1 && shown[name]) print text[name] }' <<<"$settings" | sort)
diff -u --label "$example" --label '--help' \
    <(example_settings | sort | grep -wFf <(names <<<"$shared")) <(printf '%s\n' "$shared") ||
    die "$example and --help show different defaults"
say "$example is what --help says"
