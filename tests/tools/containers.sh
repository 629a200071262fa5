# Sourced: the container image that the container tests run.
#
#   containers_missing                 says what is missing for these tests, and succeeds; fails when nothing is
#   build_container_image PROFILE      builds the image with the Dockerfile, and names it in TRIBUTARY_TEST_CONTAINERS
#   remove_containers                  removes everything that was made since, by whoever made it, and nothing else
#
# All that is made has the run's name: images and containers in a label that they inherit from the base images, volumes and networks in
# the beginning of their names.

containers_missing() {
    if ! command -v docker >/dev/null; then
        echo "no Docker"
    elif ! docker info >/dev/null 2>&1; then
        echo "no Docker engine answers"
    elif ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
        echo "neither \`docker compose\` nor docker-compose"
    elif [[ $(id -u) -ne 0 ]]; then
        echo "only root can make the base images, with debootstrap"
    else
        return 1
    fi
}

build_container_image() {
    export TRIBUTARY_TEST_CONTAINERS=tributary-test-$$-$RANDOM
    local run=$TRIBUTARY_TEST_CONTAINERS log
    tests/tools/docker_base.sh "$run" "$run/debian" "$run/rust"
    log=$(mktemp)
    # A network has no part in it, so it gets none.
    if ! docker build --force-rm --network none --file docker/Dockerfile --tag "$run/node" --build-arg "PROFILE=$1" \
        --build-arg "RUST_IMAGE=$run/rust" --build-arg "RUNTIME_IMAGE=$run/debian" . >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

remove_containers() {
    local run=${TRIBUTARY_TEST_CONTAINERS:-} round
    [[ -n $run ]] || return 0
    docker ps -aq --filter "label=org.tributary.test=$run" | xargs -r docker rm --force --volumes >/dev/null
    docker network ls -q --filter "name=^$run-" | xargs -r docker network rm >/dev/null
    docker volume ls -q --filter "name=^$run-" | xargs -r docker volume rm --force >/dev/null
    # An image goes after those that were made from it.
    for round in 1 2 3 4 5; do
        docker images -q --filter "label=org.tributary.test=$run" | sort -u | xargs -r docker rmi --force >/dev/null 2>&1 || true
        [[ -n $(docker images -aq --filter "label=org.tributary.test=$run") ]] || return 0
    done
    printf 'images of the tests are left; see: docker images --all --filter label=org.tributary.test=%s\n' "$run" >&2
}
