# shellcheck shell=bash
# What the benchmarks share. Sourced from the repository's top.
work=$(mktemp -d)
pids=()
# Directories that are removed at the end, beside the working directory.
also=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work" "${also[@]}"
}
trap finish EXIT

say() { printf '\n== %s\n' "$*" >&2; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# median NAME: the median of one hyperfine result, in milliseconds with one decimal
median() { jq -r '.results[0].median * 1000 | . * 10 | round / 10' "$work/$1.json"; }
ratio() { python3 -c "print(f'{$1 / $2:.1f}')"; }
# row CELL…: a row of the table, to the file $out where there is one
row() { printf '| %s | %s | %s | %s | %s |\n' "$@" | if [ -n "${out-}" ]; then cat >>"$out"; else cat; fi; }
# uri LABEL: where this machine's apt has that archive of Debian from
uri() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | head -n 1 | sed 's:/$::'; }
# mirror PORT CONFIGURATION: nginx with this server, on that port of loopback
mirror() {
  cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log $work/nginx.log; worker_processes 1; user root;
events { worker_connections 256; }
http { access_log off; client_body_temp_path $work/n1; proxy_temp_path $work/n2; fastcgi_temp_path $work/n3;
  uwsgi_temp_path $work/n4; scgi_temp_path $work/n5; sendfile on; keepalive_requests 100000;
$2
}
CONF
  chmod 755 "$work"
  nginx -c "$work/nginx.conf" -p "$work" & pids+=($!)
  until curl -fsS -o /dev/null "http://127.0.0.1:$1/debian/dists/trixie/InRelease" 2>/dev/null; do sleep 0.2; done
}
