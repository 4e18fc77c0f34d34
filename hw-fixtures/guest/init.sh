#!/bin/bash
# PID 1 of the guest: the host's root read-only, a tmpfs over it, then the agent. What it is told is on the kernel's command line,
# which makes it environment: rig, the folder of kernel and modules; fixtures, the folder that guest/ lies in; shared, the folder to
# mount as /host; address, IP/LENGTH; host, its IP; ready, a port there.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
if [ "${1:-}" != inside ]; then
  mount -t tmpfs tmpfs /mnt && mkdir -p /mnt/{upper,work,root} &&
  mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root && cd /mnt/root &&
  mount -t proc proc proc && mount -t sysfs sys sys && mount -t devtmpfs dev dev && mkdir -p dev/shm dev/pts host &&
  mount -t tmpfs shm dev/shm && mount -t devpts pts dev/pts && mount -t tmpfs run run &&
  mount -t hostfs -o "$shared" none host &&
  exec chroot . /bin/bash "$fixtures/guest/init.sh" inside
  echo "guest: cannot make its root file system"
  exec busybox poweroff -f
fi
# modprobe and the kernel's own loading of modules look here.
mkdir -p /lib/modules
ln -s "$rig"/modules/lib/modules/* /lib/modules/
ip link set lo up
ip addr add "$address" dev vec0
ip link set vec0 up
ip route add default via "$host"
dmesg -n 1
export PATH=$fixtures/guest/bin:$PATH
if [ -e /host/gst-registry.bin ]; then
  # The scan for plugins takes seconds here; with the host's result only those that depend on devices are looked at again.
  cp /host/gst-registry.bin /run/
  export GST_REGISTRY=/run/gst-registry.bin GST_REGISTRY_FORK=no
fi
/usr/bin/python3 "$fixtures/guest/agent.py"
echo "guest: its agent ended with $?"
exec busybox poweroff -f
