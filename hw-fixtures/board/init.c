// The board's initramfs: loads the modules in /modules in the order of their names, mounts the disk that root= on the kernel's command
// line names, and hands over to the systemd on it. Debian's kernel has disk and file system as modules.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

// Time for the kernel to find a disk: 5 s, looked at every 10 ms.
enum { LOOKS = 500, LOOK_EVERY_US = 10000 };

static int die(const char *what) {
  printf("board: %s: %s\n", what, strerror(errno));
  sleep(1); // the console is slow
  return 1; // the kernel panics without PID 1, and so ends the machine
}

static void load_modules(void) {
  struct dirent **files;
  int count = scandir("/modules", &files, NULL, alphasort);
  for (int i = 0; i < count; i++) {
    if (files[i]->d_name[0] == '.')
      continue;
    char path[512];
    snprintf(path, sizeof path, "/modules/%s", files[i]->d_name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (syscall(SYS_finit_module, file, "", 0) < 0 && errno != EEXIST)
      printf("board: cannot load %s: %s\n", path, strerror(errno));
    close(file);
  }
}

static int read_root_device(char *device, size_t size) {
  char line[4096] = "";
  int file = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t length = read(file, line, sizeof line - 1);
  close(file);
  if (length < 0)
    return -1;
  for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
    if (strncmp(word, "root=", 5) == 0) {
      snprintf(device, size, "%s", word + 5);
      return 0;
    }
  errno = ENOENT;
  return -1;
}

int main(void) {
  mount("devtmpfs", "/dev", "devtmpfs", 0, "mode=0755");
  mount("proc", "/proc", "proc", 0, NULL);
  int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; fd++)
    dup2(console, fd);
  setvbuf(stdout, NULL, _IONBF, 0);

  load_modules();
  char device[256];
  if (read_root_device(device, sizeof device) < 0)
    return die("no root= on the command line");
  for (int look = 0; access(device, F_OK) < 0 && look < LOOKS; look++)
    usleep(LOOK_EVERY_US);
  if (mount(device, "/root", "ext4", MS_NOATIME, NULL) < 0)
    return die(device);

  umount("/proc");
  if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) < 0 || chdir("/root") < 0 ||
      mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
    return die("cannot enter the root file system");
  char *arguments[] = {"/lib/systemd/systemd", NULL};
  char *environment[] = {"HOME=/", "TERM=dumb", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
  execve(arguments[0], arguments, environment);
  return die(arguments[0]);
}
