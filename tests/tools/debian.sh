# Sourced: Debian packages that a script needs.

# Installs the packages named, when it runs as root; otherwise says how to, and fails. Without arguments it does nothing.
install_missing() {
    (($#)) || return 0
    local missing
    mapfile -t missing < <(printf '%s\n' "$@" | sort -u)
    if [[ $(id -u) -ne 0 ]]; then
        printf 'missing packages; run: sudo apt-get install %s\n' "${missing[*]}" >&2
        return 1
    fi
    printf 'installing: %s\n' "${missing[*]}" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
