//! `provision` is killed at random points: the next run finishes the job, whatever was done by then.

use std::time::{Duration, Instant};

use crate::support::{Machine, Site, program, provisioned, turn};

/// Where the two sites lie on the machine, and the program.
const PLACE: &str = "/root/kill";

#[test]
fn a_killed_provision_is_finished_by_the_next() {
    let _turn = turn();
    let full = std::env::var_os("BEDPLATE_FULL").is_some();
    let kills = if full { 100 } else { 10 };
    let seed = std::env::var("BEDPLATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    eprintln!("{kills} kills with BEDPLATE_SEED={seed}");
    let mut random = Random(seed);

    // States to go back and forth between, so that each run that is killed has something to do. The third also changes
    // Docker's configuration; Docker restarts for it, which takes a minute under emulation, so it has every tenth turn.
    let (machine, site) = provisioned();
    let second = [
        ("vm.max_map_count = 262144", "vm.max_map_count = 300000"),
        ("bedplate/engine:1.0", "bedplate/engine:1.1"),
        (
            "[checks]",
            "[[file]]\npath = \"/etc/bedplate-story/a.conf\"\nmode = \"0640\"\ncontent = \"a\"\n\n[checks]",
        ),
        ("[checks]", "[[mount]]\npath = \"/data/story\"\nmode = \"0750\"\nowner = \"root:root\"\n\n[checks]"),
    ];
    let daemon =
        ("gpu-access = \"none\"", "gpu-access = \"none\"\ndaemon = { max-concurrent-downloads = 2 }");
    let sites = [Site::new(), Site::new()];
    for (from, to) in second {
        sites[0].change(from, to);
        sites[1].change(from, to);
    }
    sites[1].change(daemon.0, daemon.1);
    machine.sh(&format!("rm -rf {PLACE} && mkdir -p {PLACE}"));
    machine.copy(program(), &format!("{PLACE}/bedplate"));
    machine.copy(&site.path(""), &format!("{PLACE}/a"));
    for (other, name) in sites.iter().zip(["b", "c"]) {
        other.lock();
        machine.copy(&other.path(""), &format!("{PLACE}/{name}"));
    }

    // How long a whole run takes: kills come within it.
    let started = Instant::now();
    provision(machine, &site, "b").expect(0);
    let mut whole = started.elapsed();
    converged(machine, "b");
    let mut at = "b";
    let mut killed = 0;
    for number in 1..=kills {
        let target = match at {
            "a" if number % 10 == 5 => "c",
            "a" => "b",
            _ => "a",
        };
        let after = whole.mul_f64(random.fraction());
        let ended = provision_killed_after(machine, &site, target, after);
        killed += u32::from(ended == 137);
        if ended == 0 {
            // Quicker than the first, which pulled an image: kills are to come within the run.
            whole = whole.mul_f64(0.8);
        }
        eprintln!("kill {number} of {kills}: {target} after {after:.2?}, ended with {ended}");
        assert!(ended == 137 || ended == 0, "the run that was to be killed ended with {ended} before that");
        // Whatever the next run is asked for, it gets there: what was begun, or back again.
        let next = if random.fraction() < 0.5 { target } else { at };
        provision(machine, &site, next).expect(0);
        converged(machine, next);
        if number % 5 == 0 {
            provision(machine, &site, next).expect(0).says("nothing to do");
        }
        at = next;
    }
    assert!(killed * 2 > kills, "only {killed} of {kills} runs were killed while they worked");

    // And as the other stories expect it.
    site.provision(machine, &[]).expect(0);
}

/// `bedplate provision` on the machine itself, from one of the two sites.
fn provision(machine: &Machine, site: &Site, which: &str) -> crate::support::Run {
    machine
        .script(&format!("{}cd {PLACE}/{which}\n{PLACE}/bedplate provision profiles/try.toml", exports(site)))
}

/// The same, killed after a while; its exit code, 137 where the kill ended it.
fn provision_killed_after(machine: &Machine, site: &Site, which: &str, after: Duration) -> i32 {
    let run = machine.script(&format!(
        "{}cd {PLACE}/{which}\n{PLACE}/bedplate provision profiles/try.toml >/root/kill.log 2>&1 &\n\
         pid=$!\nsleep {:.3}\nkill -KILL $pid 2>/dev/null\nwait $pid\necho $?",
        exports(site),
        after.as_secs_f64()
    ));
    run.stdout.trim().parse().unwrap_or_else(|_| panic!("{run}"))
}

/// The secrets for a script that travels on standard input.
fn exports(site: &Site) -> String {
    site.secrets.all().map(|(name, value)| format!("export {name}={value}\n")).concat()
}

/// The host is what the site says, whole.
#[track_caller]
fn converged(machine: &Machine, which: &str) {
    let sysctl = machine.sh("cat /etc/sysctl.d/60-inference.conf; sysctl -n vm.max_map_count");
    let story = machine.sh("cat /etc/bedplate-story/a.conf 2>/dev/null || true");
    let engine =
        machine.sh("find -L /var/lib/bedplate/current -name '*.lock' -exec grep -h bedplate/engine: {} +");
    if which == "a" {
        assert_eq!(sysctl, "vm.max_map_count = 262144\n262144");
        assert_eq!(story, "", "a file of the other generation stayed");
        assert!(engine.contains("engine:1.0\""), "{engine}");
    } else {
        assert_eq!(sysctl, "vm.max_map_count = 300000\n300000");
        assert_eq!(story, "a");
        assert_eq!(machine.mode("/etc/bedplate-story/a.conf"), "640 root:root");
        assert_eq!(machine.mode("/data/story"), "750 root:root");
        assert!(engine.contains("engine:1.1\""), "{engine}");
    }
    let daemon = machine.sh("cat /etc/docker/daemon.json 2>/dev/null || true");
    assert_eq!(daemon.contains("max-concurrent-downloads"), which == "c", "{daemon}");
    assert_eq!(machine.mode("/data/minerhome"), "700 root:root");
    // Nothing half written stays behind.
    let halves = machine
        .sh("find /etc /data /var/lib/bedplate /run/bedplate -xdev -name '.bedplate-*' 2>/dev/null || true");
    assert_eq!(halves, "", "left over from an interrupted write");
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    /// From 0 up to 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
