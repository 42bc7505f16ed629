# Hosts of our own on one machine: network namespaces on a bridge, each with an ssh server. To be sourced; needs root.
#   hosts_up N FOLDER    host1..N at 10.89.7.11.. ; ssh -F FOLDER/ssh_config host1
#   unplug hostN, plug hostN
#   shape hostN RATE     what it sends, as tc's tbf takes it: 1gbit
#   deafen hostN hostM   they don't reach each other; hear hostN hostM
#   joined_count         processes on the hosts that came to a launcher
#   hosts_down           ends what it started, by process id
kBridge=troupe0
kNet=10.89.7
hosts_pids=()
hosts_count=0

hosts_up() {
  local n folder=$2
  hosts_count=$1
  ip link add $kBridge type bridge && ip addr add $kNet.1/24 dev $kBridge && ip link set $kBridge up
  mkdir -p /run/sshd
  ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
  : >"$folder/known_hosts"
  for ((n = 1; n <= hosts_count; ++n)); do
    ip netns add troupe-host$n
    ip link add troupe0v$n type veth peer name eth0 netns troupe-host$n
    ip link set troupe0v$n master $kBridge up
    ip -n troupe-host$n link set lo up
    ip -n troupe-host$n addr add $kNet.$((10 + n))/24 dev eth0
    ip -n troupe-host$n link set eth0 up
    ssh-keygen -q -t ed25519 -N '' -f "$folder/host$n"
    printf '[%s]:2222 %s\n' $kNet.$((10 + n)) "$(cut -d' ' -f1,2 "$folder/host$n.pub")" >>"$folder/known_hosts"
    cat >"$folder/sshd$n" <<END
Port 2222
ListenAddress $kNet.$((10 + n))
HostKey $folder/host$n
AuthorizedKeysFile $folder/key.pub
PidFile none
PasswordAuthentication no
UsePAM no
PermitRootLogin prohibit-password
StrictModes no
END
    # nsenter, not `ip netns exec`: that mounts another /sys. A mount namespace of its own, so that a host may be given
    # what others don't see.
    nsenter --net=/run/netns/troupe-host$n unshare --mount bash -c \
      "$(printf '%s exec /usr/sbin/sshd -D -f "$0" -E "$0.log"' "${host_mounts:-}")" "$folder/sshd$n" &
    hosts_pids+=($!)
    printf 'Host host%s\n HostName %s\n' $n $kNet.$((10 + n)) >>"$folder/ssh_config"
  done
  cat >>"$folder/ssh_config" <<END
Host *
 User root
 Port 2222
 IdentityFile $folder/key
 IdentitiesOnly yes
 UserKnownHostsFile $folder/known_hosts
 StrictHostKeyChecking yes
 ConnectTimeout 5
END
  for ((n = 1; n <= hosts_count; ++n)); do
    for _ in $(seq 50); do
      ssh -F "$folder/ssh_config" -o BatchMode=yes host$n true 2>/dev/null && break
      sleep 0.1
    done
  done
}

unplug() { ip link set "troupe0v${1#host}" down; }
plug() { ip link set "troupe0v${1#host}" up; }

shape() { nsenter --net="/run/netns/troupe-$1" tc qdisc replace dev eth0 root tbf rate "$2" burst 256kb latency 50ms; }
deafen() { ip -n "troupe-$1" route add blackhole $kNet.$((10 + ${2#host})); }
hear() { ip -n "troupe-$1" route del blackhole $kNet.$((10 + ${2#host})); }
joined_count() {
  local n pid count=0
  for ((n = 1; n <= hosts_count; ++n)); do
    for pid in $(ip netns pids troupe-host$n); do
      tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -- '^[^ ]* node --join ' && ((++count))
    done
  done
  echo $count
}

hosts_down() {
  local n
  ((${#hosts_pids[@]} == 0)) || kill "${hosts_pids[@]}" 2>/dev/null || true
  for ((n = 1; n <= hosts_count; ++n)); do ip netns del troupe-host$n 2>/dev/null || true; done
  ip link del $kBridge 2>/dev/null || true
}
