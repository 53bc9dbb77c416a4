#!/bin/sh
# The first steps of a guest: modules, the share, then Python from it. Words are filled in by initramfs.py.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for module in /modules/*; do $b insmod "$module"; done
$b mount -t devtmpfs dev /dev
$b ifconfig lo 127.0.0.1
if [ -n "$WALRAS_ADDRESS" ]; then
  # Nobody speaks IPv6 there.
  echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6
  $b ifconfig eth0 "$WALRAS_ADDRESS" netmask 255.255.255.255 up
  $b route add -host "$WALRAS_ROUTER" dev eth0
  $b route add default gw "$WALRAS_ROUTER" dev eth0
fi
# Its programs belong to nobody whom the guest knows: a set-user-ID bit would make root less.
$b mount -t virtiofs -o nosuid share /.share || { echo "no share"; exec $b poweroff -f; }
exec @PYTHON@ -I -S -c 'import sys; sys.path.insert(0, "/agent"); from walras.runtimes.vm.guest.agent import main; main()'
