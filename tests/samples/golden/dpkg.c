/* What stands for dpkg in the golden image: frozen, since the real one is another with every update. It does the one thing
 * that is left to do where packages have neither scripts, triggers nor configuration files: in /var/lib/dpkg/status,
 * `unpacked` becomes `installed`. It needs no library.
 *
 *   gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none \
 *     -Wl,--build-id=none,-z,noseparate-code,-N -s -o dpkg dpkg.c
 */

static char in[1 << 16], out[1 << 17];

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static int at(const char *text, const char *word)
{
    while (*word)
        if (*text++ != *word++)
            return 0;
    return 1;
}

void _start(void)
{
    static const char path[] = "/var/lib/dpkg/status", before[] = "install ok unpacked", after[] = "install ok installed";
    long file = call(2, (long)path, 0, 0), size = 0, made = 0, count;
    if (file < 0)
        call(60, 2, 0, 0);
    while ((count = call(0, file, (long)(in + size), sizeof in - 1 - size)) > 0)
        size += count;
    for (long from = 0; from < size;) {
        if (at(in + from, before)) {
            for (const char *next = after; *next; next++)
                out[made++] = *next;
            from += sizeof before - 1;
        } else {
            out[made++] = in[from++];
        }
    }
    file = call(2, (long)path, 1 | 512, 0);
    for (long done = 0; done < made; done += count)
        if ((count = call(1, file, (long)(out + done), made - done)) <= 0)
            call(60, 2, 0, 0);
    call(60, 0, 0, 0);
}
