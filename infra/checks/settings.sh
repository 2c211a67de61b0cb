#!/usr/bin/env bash
# .env.example and the README's table, made from what the services' --help say of their settings.
#   settings.sh write|check
# shellcheck source=infra/lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

cd "$root"
example=.env.example
readme=README.md

# help_rows SERVICE [SUBCOMMAND]: "service name default description" for each setting, between tabs,
# from clap's "--flag <VALUE> description [env: NAME=] [default: value]", wrapped as it may be.
help_rows() {
    # A clean environment: --help shows the values that are set.
    env -i "${CARGO_TARGET_DIR:-target}/debug/$1" "${@:2}" --help | awk -v service="$1" '
        function row() {
            gsub(/ +/, " ", text)
            if (!match(text, /\[env: [A-Z0-9_]+/)) return
            name = substr(text, RSTART + 6, RLENGTH - 6)
            description = substr(text, 1, RSTART - 1)
            sub(/^ *(-., )?--[^ ]+ (<[^>]*> )?/, "", description)
            sub(/ *(Possible values: .*)?$/, "", description)
            value = match(text, /\[default: [^]]*/) ? substr(text, RSTART + 10, RLENGTH - 10) : ""
            printf "%s\t%s\t%s\t%s\n", service, name, value, description
        }
        /^ +(-., )?--/ { row(); text = "" }
        { text = text " " $0 }
        END { row() }'
}

# print_example: first what several services share, then what is each one's own. A setting with
# another default in each service is listed with each.
print_example() {
    cat <<'EOF'
# The settings of the three services, each with its default: without any of them the services run the
# local stack. To change some, put lines like these into .env, which `make up` reads (plain
# NAME=value, nothing is expanded).
#
# DATABASE_URL, ADMIN_BIND_ADDR, API_BIND_ADDR and KAFKA_BROKERS are not for .env: `make up` gives each
# service its own. They are for whoever runs the services elsewhere.
#
# Made from --help by `make env-example`; do not edit.
EOF
    { help_rows api && help_rows api migrate && help_rows publisher && help_rows worker; } | awk -F'\t' '
        { key = $2 "\t" $3 }
        !(key in services) { order[++rows] = key; description[key] = $4 }
        { services[key] = services[key] (services[key] == "" ? "" : ", ") $1 }
        function section(title, wanted,    i, parts) {
            for (i = 1; i <= rows; i++) {
                if (wanted == "" ? services[order[i]] !~ /,/ : services[order[i]] != wanted) continue
                if (title != "") { print "\n## " title; title = "" }
                split(order[i], parts, "\t")
                suffix = wanted == "" ? " (" services[order[i]] ")" : ""
                printf "\n# %s%s\n#%s=%s\n", description[order[i]], suffix, parts[1], parts[2]
            }
        }
        END {
            section("Several services", "")
            section("api", "api")
            section("publisher", "publisher")
            section("worker", "worker")
        }'
}

# print_readme EXAMPLE: the README with its table made anew, between the two marks.
print_readme() {
    awk '
        NR == FNR && /^## / { table = table "\n**" substr($0, 4) "**\n\n| variable | default | meaning |\n|---|---|---|\n"; in_table = 1 }
        NR == FNR && in_table && /^# / { meaning = substr($0, 3) }
        NR == FNR && in_table && /^#[A-Z_]+=/ {
            name = substr($0, 2, index($0, "=") - 2)
            value = substr($0, index($0, "=") + 1)
            gsub(/\|/, "\\|", meaning)
            table = table "| `" name "` | " (value == "" ? "" : "`" value "`") " | " meaning " |\n"
        }
        NR == FNR { next }
        /^<!-- settings -->$/ { print; print table; skip = 1 }
        /^<!-- end of settings -->$/ { skip = 0 }
        !skip { print }
    ' "$1" "$readme"
}

SQLX_OFFLINE=true cargo build --quiet --locked --bins
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
print_example >"$made/example"
print_readme "$made/example" >"$made/readme"
case ${1:-} in
    write)
        cat "$made/example" >"$example"
        cat "$made/readme" >"$readme"
        say "$example and the table in $readme written"
        ;;
    check)
        diff -u "$example" "$made/example" || die "$example is not what --help says: run make env-example"
        diff -u "$readme" "$made/readme" || die "$readme is not what --help says: run make env-example"
        say "$example and the table in $readme are current"
        ;;
    *) die "usage: settings.sh write|check" ;;
esac
