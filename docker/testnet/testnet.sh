#!/bin/sh
# What the containers of docker/compose.yaml run beside or before the program. Nodes tell each other who they are by cards in a volume that
# they share; keys never leave the volume of their node.
#
#   testnet.sh relay NAME
#   testnet.sh machine NAME RELAY CUSTOMERS     sells to these buyers, and to nobody else; has a place at the relay
#   testnet.sh buyer NAME MACHINE RELAY STREAMS follows the machine, directly or through the relay, and buys these of its streams as they come
#   testnet.sh feed RECORDING                   plays a recording to the machine over and over
#   testnet.sh shop BUYERS                      each buyer buys what there was before its subscription
#   testnet.sh verify [ARGUMENTS]               `tributary testnet verify`
set -eu

cards=/testnet
streams='/odom /fix /scan /battery'

# The value of a field of another node's card, when that is there.
field() {
    until [ -s "$cards/nodes/$2.json" ]; do sleep 0.2; done
    sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$cards/nodes/$2.json"
}

# 'a b' as "a", "b".
listed() {
    for item in $1; do printf '"%s"\n' "$item"; done | paste -sd, -
}

# Makes the home at the first start, and publishes the node's card: what `tributary testnet` keeps of a node. Names, not numbers: addresses
# change when containers are made anew.
introduce() {
    [ -d "$TRIBUTARY_HOME/keys" ] || tributary init --role "$role" >/dev/null
    own=$(tributary key show --json)
    did=$(printf %s "$own" | sed -n 's/.*"did": *"\([^"]*\)".*/\1/p')
    peer=$(printf %s "$own" | sed -n 's/.*"peer_id": *"\([^"]*\)".*/\1/p')
    address=/dns4/$name/tcp/4600/p2p/$peer
    mkdir -p "$cards/nodes"
    printf '{"name":"%s","role":"%s","did":"%s","peer":"%s","address":"%s","follows":%s,"buys":[%s],"process":null,"host":null}\n' \
        "$name" "$role" "$did" "$peer" "$address" "${1:-null}" "${2:-}" >"$cards/nodes/$name.draft"
    mv "$cards/nodes/$name.draft" "$cards/nodes/$name.json"
}

# Runs the node with the configuration on standard input, behind what all have.
run() {
    {
        printf 'roles: [%s]\n' "$role"
        printf 'store: { ballast: none }\n'
        printf 'metrics: { listen: "0.0.0.0:9464", hosts: [%s] }\n' "$name"
        cat
    } >"$TRIBUTARY_HOME/config.yaml"
    exec tributary run -v
}

# How many subscriptions of the buyer whose home is named live.
live() {
    tributary --home "$1" status --json 2>/dev/null | grep -c '"state": *"live"' || true
}

role=$1
shift
case $role in
relay)
    name=$1
    introduce
    run <<CONFIG
network: { external: [/dns4/$name/tcp/4600] }
CONFIG
    ;;
machine)
    name=$1
    introduce
    allow=
    for customer in $3; do allow="$allow $(field did "$customer")"; done
    run <<CONFIG
network: { relays: [$(field address "$2")] }
defaults:
  chunk: { max_age: 1s }
  close_after: { time: 20s }
  access: { policy: allowlist, allow: [$(listed "$allow")] }
streams:
  - { topic: /odom, mode: fields, default: include }
  - topic: /fix
    mode: fields
    default: include
    rules:
      - { path: latitude, action: anonymize, strategy: generalize }
      - { path: longitude, action: anonymize, strategy: generalize }
      - { path: altitude, action: exclude }
  - { topic: /scan, mode: raw }
  - { topic: /battery, mode: fields, default: include }
CONFIG
    ;;
buyer)
    name=$1
    introduce "\"$2\"" "$(listed "$4")"
    machine=$(field did "$2")
    run <<CONFIG
follow:
  - { machine: "$machine", addresses: ["$(field address "$2")", "$(field address "$3")/p2p-circuit/p2p/$(field peer "$2")"] }
buyer:
  subscriptions:
    - { machine: "$machine", streams: [$(listed "$4")], export: { dir: data } }
CONFIG
    ;;
feed)
    # Ends when the machine does, and is then started anew.
    until tributary health >/dev/null 2>&1; do sleep 1; done
    exec tributary ingest "$1" --replay --repeat
    ;;
shop)
    for name in $1; do
        home=$cards/$name
        machine=$(field follows "$name")
        buys=$(sed -n 's/.*"buys":\[\([^]]*\)\].*/\1/p' "$cards/nodes/$name.json" | tr -d '"' | tr ',' ' ')
        selection="--machine $(field did "$machine")"
        number=0
        for stream in $buys; do
            selection="$selection --stream $stream"
            number=$((number + 1))
        done
        until [ "$(live "$home")" = "$number" ]; do sleep 1; done
        # What there was is bought until it is granted: the machine may have been restarted meanwhile.
        # shellcheck disable=SC2086 # words
        until tributary --home "$home" access request $selection --wait 30s && tributary --home "$home" pull $selection; do sleep 1; done
    done
    ;;
verify)
    nodes=$(for card in "$cards"/nodes/*.json; do grep -v '"role":"relay"' "$card" || true; done | paste -sd, -)
    # The description that `tributary testnet up` would have written.
    printf '{"version":1,"id":"%s","boot":"","phase":"up","program":"/usr/local/bin/tributary","feed":{"recording":{"path":null,"speed":1.0}},"streams":[%s],"nodes":[%s],"feeder":null,"world":null,"partition":[]}\n' \
        00000000000000000000000000000000 "$(listed "$streams")" "$nodes" >"$cards/testnet.json"
    exec tributary testnet verify --dir "$cards" "$@"
    ;;
*)
    echo "no such role: $role" >&2
    exit 2
    ;;
esac
