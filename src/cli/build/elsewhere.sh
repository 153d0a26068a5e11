# The second build of `--verify-twice`: another umask, host name, directory and user, one processor.
#   sh -c … sh UID-MAP GID-MAP COMMAND…
# The maps are those of a user namespace (user_namespaces(7)), whose root the command becomes; empty: no other user.
set -eu
umask 077
hostname elsewhere
cd /
uids=$1 gids=$2
shift 2
if [ -n "$uids" ]; then
  # Only a process outside may write the maps, and only after the namespace is there.
  holder=$(unshare --user sh -c 'echo $$; exec sleep 60 >/dev/null 2>&1' &)
  printf '%s' "$uids" >"/proc/$holder/uid_map"
  printf '%s' "$gids" >"/proc/$holder/gid_map"
  exec 9<"/proc/$holder/ns/user"
  kill "$holder"
  # Root outside is an ordinary user there: a program of its that is set-user-id must not become that user.
  set -- setpriv --pdeathsig KILL --no-new-privs -- "$@"
  set -- nsenter --user=/proc/self/fd/9 --setuid 0 --setgid 0 -- "$@"
fi
exec taskset --cpu-list 0 "$@"
