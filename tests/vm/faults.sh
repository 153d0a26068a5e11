# Sourced on the test machine before each fault of tests/support/faults is planted, looked at and mended.
# shellcheck shell=bash disable=SC2034
lab=/root/lab
kept=$lab/kept
profile=$lab/profiles/try.toml
identity=/data/minerhome/config.json
secrets=/run/bedplate/secrets
# In the form that the hub gives them, and nobody's.
token=hf_QzWx8EdCr5FvTgB2yHnUj7MiKoLpA9s4
engine=127.0.0.1:5017/bedplate/engine:1.0

# id NAME: of the image that the current generation has by this name of the profile.
id() { docker images -q --no-trunc "bedplate/$1:g$(basename "$(readlink /var/lib/bedplate/current)")"; }

# deployment EXPRESSION: changes the deployment that is looked at, by sed; each mend begins with it as it was.
deployment() { sed -i "$1" $lab/lab.yaml; }
model() { deployment "s|^model: .*|model: $1|"; }
engine_alone() { deployment '/^miner_client:/,$d'; }
# further ENTRYPOINT: a service beside the engine.
further() {
  printf 'extra_services:\n  further:\n    image: 127.0.0.1:5017/bedplate/exporter:1.0\n    entrypoint: %s\n' "$1" >>$lab/lab.yaml
}

# background COMMAND…: goes on until `settle`.
background() {
  setsid "$@" </dev/null >/dev/null 2>&1 &
  echo $! >>$lab/pids
}
settle() {
  local pid
  [ -e $lab/pids ] || return 0
  while read -r pid; do kill -- "-$pid" 2>/dev/null || true; done <$lab/pids
  rm $lab/pids
}
listen() {
  background perl -MIO::Socket::INET -e \
    'my $socket = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => $ARGV[1], Listen => 1, ReuseAddr => 1) or die; sleep' \
    "$1" "$2"
  for _ in $(seq 100); do
    [ -z "$(ss -Hltn "sport = :$2")" ] || return 0
    sleep 0.1
  done
  return 1
}
# once_up CONTAINER COMMAND…: runs it once the container runs.
once_up() {
  local container=$1
  shift
  # shellcheck disable=SC2016
  background bash -c 'until [ "$(docker inspect -f "{{.State.Running}}" "$0" 2>/dev/null)" = true ]; do sleep 0.2; done; "$@"' "$container" "$@"
}
# other OPTIONS…: a container of nobody's.
other() { docker run -d --name lab-other "$@" "$(id exporter)"; }

# daemon_json [TEXT]: Docker's configuration; without TEXT as it was.
daemon_json() {
  if [ $# -eq 1 ]; then
    mkdir $kept/daemon
    cp -a /etc/docker/daemon.json $kept/daemon 2>/dev/null || mkdir -p /etc/docker
    echo "$1" >/etc/docker/daemon.json
  else
    rm -f /etc/docker/daemon.json
    cp -a $kept/daemon/daemon.json /etc/docker/ 2>/dev/null || true
    rm -r $kept/daemon
  fi
}
restart_docker() {
  systemctl reset-failed docker.service docker.socket 2>/dev/null || true
  systemctl restart docker.service
}
docker_with() { daemon_json "$1" && restart_docker; }
docker_without() { daemon_json && restart_docker; }

remove_engine() { docker rmi -f "$(id vllm)"; }
engine_as_it_was() { docker load -q -i $lab/engine.tar; }

# immutable 16|0 DIRECTORY: sets the attribute of chattr(1), which is not installed, or clears it (FS_IOC_SETFLAGS).
immutable() { perl -e 'open my $directory, "<", $ARGV[1] or die; ioctl $directory, 0x40086602, pack "L", $ARGV[0] or die' "$1" "$2"; }

# package NAME: an empty package of this name is installed.
package() {
  mkdir -p "$kept/package/DEBIAN"
  printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: N <n@example.org>\nDescription: empty\n' "$1" >"$kept/package/DEBIAN/control"
  dpkg-deb -b "$kept/package" "$kept/package.deb"
  dpkg -i "$kept/package.deb"
  rm -r "$kept/package" "$kept/package.deb"
}

profile_with_gpus() {
  sed -i -e 's/^\[driver\]/[gpu]\nmodel = "H100"\ncount = 8\n\n[driver]/' -e 's/^gpu-access = .*/gpu-access = "cdi"/' \
    -e 's/^flavor = .*/flavor = "open"\nversion = "550.163.01"/' $profile
}
profile_as_it_was() { cp $lab/good.toml $profile; }

# hub_at PORT: where the model hub is looked for.
hub_at() { echo "hub = \"http://hub.lab:$1\"" >/etc/bedplate/config.toml; }
# hub: answers as the model hub does, for a few names, until it is killed.
hub() {
  # shellcheck disable=SC2016
  setsid perl -MIO::Socket::INET -e '
    my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8099, Listen => 20, ReuseAddr => 1) or die;
    my $size = { "lab/large" => 9e15 };
    while (my $client = $socket->accept) {
      my $path = (split / /, scalar <$client> // "")[1] // "";
      my $token;
      while (<$client>) { $token = 1 if /^authorization:/i; last if /^\s*$/ }
      my ($name) = $path =~ m{^/(?:api/models/)?(lab/\w+)};
      my $shown = $path =~ m{^/api/};
      my ($status, $body) = ("404 Not Found", "");
      if ($name =~ /refused/) { $status = "401 Unauthorized" }
      elsif ($name =~ /broken/) { $status = "500 Internal Server Error" }
      elsif ($name =~ /gated/ && !$shown) { $status = $token ? "403 Forbidden" : "401 Unauthorized" }
      elsif ($shown && $name =~ /gated|open|large/) {
        $status = "200 OK";
        $body = sprintf q({"gated": %s, "siblings": [{"rfilename": "model.safetensors", "size": %.0f}]}),
          $name =~ /gated/ ? q("manual") : "false", $size->{$name} // 1000;
      }
      printf $client "HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", $status, length $body, $body;
      close $client;
    }' </dev/null >/dev/null 2>&1 &
  echo $! >$lab/hub.pid
}

# lab_open: once, before the first fault. lab_close: leaves the machine as it was.
lab_open() {
  mkdir -p $lab $kept
  if [ ! -e $identity ]; then
    (umask 077 && echo '{}' >$identity)
    : >$lab/identity-made
  fi
  [ ! -e /etc/bedplate/config.toml ] || cp -a /etc/bedplate/config.toml $lab/config.toml
  mkdir -p /etc/bedplate
  hub_at 8099
  hub
  cp $profile $lab/good.toml
  docker inspect -f '{{join .RepoTags " "}}' "$(id vllm)" | xargs docker save -o $lab/engine.tar
}
lab_close() {
  kill "$(cat $lab/hub.pid)" || true
  rm -f /etc/bedplate/config.toml
  [ ! -e $lab/config.toml ] || mv $lab/config.toml /etc/bedplate/config.toml
  [ ! -e $lab/identity-made ] || rm $identity
  sed -i '/hub[.]lab/d' /etc/hosts
  rm -r $lab
}
