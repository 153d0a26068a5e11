//! Real runs on a tree. They change owners, so they need root.
#![allow(clippy::disallowed_methods)]

mod killed;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    generations::{Generations, Journal, State, gc},
    packages::Supply,
    provision::{self, Context, Options, Outcome},
    secrets::SecretValues,
};
use crate::{
    apt::transport::{Settings, Transport},
    error::Result,
    lock::{self, Lock, bundle::Bundle},
    plan::{self, Goal, Plan},
    progress::{Progress, Silent},
    system::files::Root,
};

struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests change owners: run them as root");
        let folder = tempfile::tempdir().unwrap();
        let tree = Self { folder };
        for path in ["etc", "data", "usr/local/bin"] {
            std::fs::create_dir_all(tree.at(path)).unwrap();
        }
        std::fs::write(tree.at("program"), "the program").unwrap();
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, content: &str, mode: u32) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), content).unwrap();
        std::fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap_or_else(|error| format!("({})", error.kind()))
    }

    fn mode(&self, path: &str) -> u32 {
        std::fs::symlink_metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }

    fn root(&self) -> Root {
        Root::open(self.folder.path()).unwrap()
    }

    fn run(&self, more: &str) -> Result<(Plan, Outcome)> {
        run(self.folder.path(), more, Goal::Provision, &Silent)
    }

    /// All that is in the tree but state, program and unit: path, kind, mode, content.
    fn outside(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        walk(self.folder.path(), self.folder.path(), &mut found);
        found.retain(|path, _| {
            !["/var", "/usr", "/program", "/data/m", "/etc/systemd"].iter().any(|own| path.starts_with(own))
        });
        found
    }

    /// Nothing a killed run left: no temporary file, no unnamed folder, no journal, nothing pending.
    fn is_tidy(&self) {
        let mut found = BTreeMap::new();
        walk(self.folder.path(), self.folder.path(), &mut found);
        let left: Vec<&String> = found
            .keys()
            .filter(|path| {
                path.contains("/.bedplate-") || path.contains("/.new-") || path.contains("/.gone-")
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let root = self.root();
        assert_eq!(Journal::read(&root).unwrap(), None);
        let generations = Generations::new(&root);
        for number in generations.numbers().unwrap() {
            assert_eq!(generations.state(number).unwrap(), State::Committed, "generation {number}");
        }
    }
}

fn walk(top: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let mode = stat.permissions().mode();
        let content = if stat.is_file() {
            String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()
        } else if stat.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::new()
        };
        let name = format!("/{}", path.strip_prefix(top).unwrap().display());
        found.insert(name, format!("{mode:o} {content}"));
        if stat.is_dir() {
            walk(top, &path, found);
        }
    }
}

fn bundle(more: &str) -> Bundle {
    let text = format!(
        "schema = 1\n[host]\ndistribution = \"debian\"\nrelease = \"trixie\"\narchitecture = \"amd64\"\n\
         [driver]\nflavor = \"none\"\n[container]\nengine = \"docker\"\ngpu-access = \"none\"\n{more}"
    );
    Bundle::assemble("t.toml", &text, &lock::write(&Lock::default()), BTreeMap::new()).unwrap()
}

fn run(folder: &Path, more: &str, goal: Goal, progress: &dyn Progress) -> Result<(Plan, Outcome)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let root = Root::open(folder)?;
    // A process another test starts right now has this one's descriptors, the lock's too, until it is exec'd.
    let mut held = provision::hold(&root, "provision `t`");
    for _ in 0..50 {
        if !held.as_ref().is_err_and(|error| error.message() == "another run holds the host") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        held = provision::hold(&root, "provision `t`");
    }
    let held = held?;
    let bundle = match goal {
        Goal::Provision => bundle(more),
        Goal::Switch(number) => provision::switch_to(&root, number)?,
    };
    let pinned = bundle.open()?;
    let inputs = plan::Inputs::of(&pinned, bundle.digest());
    let options = Options { program: folder.join("program"), ..Options::default() };
    let secrets = SecretValues::new();
    let remote = Transport::new(Settings::default());
    runtime.block_on(async {
        let state = provision::observe(&root, &inputs, &secrets, &options).await?;
        let plan = plan::make(&inputs, &state, goal)?;
        let context = Context {
            root: &root,
            held: &held,
            pinned: &pinned,
            bundle: &bundle,
            secrets: &secrets,
            registries: &BTreeMap::new(),
            supply: Supply { store: &folder.join("store"), places: &BTreeMap::new(), remote: &remote },
            look: &options,
            progress,
        };
        let outcome = provision::apply(&plan, &context).await?;
        Ok((plan, outcome))
    })
}

fn managed(path: &str, content: &str, mode: &str) -> String {
    format!("[[file]]\npath = \"{path}\"\ncontent = {content:?}\nmode = \"{mode}\"\n")
}

fn mount(path: &str, mode: &str) -> String {
    format!("[[mount]]\npath = \"{path}\"\nmode = \"{mode}\"\nowner = \"root:root\"\n")
}

fn one() -> String {
    "daemon = { live-restore = true }\n".to_owned()
        + &managed("/etc/a.conf", "one", "0644")
        + &managed("/etc/d/e/b.conf", "one", "0600")
        + &mount("/data/m", "0700")
}

fn two() -> String {
    "daemon = { mtu = 1400, features = { cdi = true } }\n".to_owned()
        + &managed("/etc/a.conf", "two", "0640")
        + &managed("/etc/d/c.conf", "two", "0644")
        + &managed("/etc/was.conf", "two", "0600")
        + &mount("/data/m", "0750")
}

fn three() -> String {
    managed("/etc/d/e/b.conf", "three", "0644") + &managed("/etc/was.conf", "three", "0644")
}

#[test]
fn provisions_repairs_switches_and_gives_back() {
    let tree = Tree::new();
    tree.put("/etc/was.conf", "was there", 0o604);
    tree.put("/data/m/config.json", "{\"key\": 1}", 0o644);
    let before = tree.outside();
    let (plan, outcome) = tree.run(&one()).unwrap();
    assert_eq!((outcome.generation, plan.generation), (1, 1));
    assert_eq!(
        (tree.mode("/etc/d/e/b.conf"), tree.mode("/data/m"), tree.mode("/var/lib/bedplate")),
        (0o600, 0o700, 0o700)
    );
    assert_eq!(tree.mode("/usr/local/bin/bedplate"), 0o755);
    assert_eq!(tree.text("/etc/a.conf"), "one\n");
    assert_eq!(
        std::fs::read_link(tree.at("/etc/systemd/system/multi-user.target.wants/bedplate-boot.service"))
            .unwrap(),
        Path::new("/etc/systemd/system/bedplate-boot.service")
    );

    let untouched = |tree: &Tree| {
        let mut all = BTreeMap::new();
        walk(tree.folder.path(), tree.folder.path(), &mut all);
        all
    };
    let seen = untouched(&tree);
    let (plan, _) = tree.run(&one()).unwrap();
    assert!(plan.is_empty());
    assert_eq!(untouched(&tree), seen);

    tree.put("/etc/a.conf", "by hand", 0o666);
    let (plan, outcome) = tree.run(&one()).unwrap();
    assert_eq!((plan.steps.len(), outcome.generation, outcome.warnings.len()), (1, 1, 1));
    assert_eq!((tree.text("/etc/a.conf").as_str(), tree.mode("/etc/a.conf")), ("one\n", 0o644));
    let kept = outcome.warnings[0].split('`').nth(3).unwrap().to_owned();
    assert_eq!(tree.text(&format!("/var/lib/bedplate/generations/1/{kept}")), "by hand");

    assert_eq!(tree.run(&two()).unwrap().1.generation, 2);
    assert_eq!((tree.text("/etc/was.conf").as_str(), tree.mode("/etc/was.conf")), ("two\n", 0o600));
    let root = tree.root();
    assert_eq!(provision::previous(&root).unwrap(), 1);
    let differs = Generations::new(&root).diff(1, 2).unwrap();
    assert!(differs.iter().any(|line| line.starts_with("+ files /etc/was.conf")), "{differs:?}");
    assert!(
        differs.iter().any(|line| line.contains("~ mounts /data/m") && line.contains("0750")),
        "{differs:?}"
    );
    run(tree.folder.path(), "", Goal::Switch(1), &Silent).unwrap();
    assert_eq!(Generations::new(&root).current_number().unwrap(), Some(1));
    assert_eq!((tree.text("/etc/was.conf").as_str(), tree.mode("/etc/was.conf")), ("was there", 0o604));
    assert_eq!(tree.text("/etc/a.conf"), "one\n");
    assert!(tree.run(&one()).unwrap().0.is_empty());

    assert_eq!(tree.run("").unwrap().1.generation, 3);
    tree.is_tidy();
    assert_eq!(tree.outside(), before);
    assert_eq!(tree.text("/data/m/config.json"), "{\"key\": 1}");
    let listed = Generations::new(&root).list().unwrap();
    assert_eq!(
        listed.iter().map(|one| (one.number, one.current)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, true)]
    );
}

#[test]
fn old_generations_are_collected_but_not_when_one_cannot_be_read() {
    let tree = Tree::new();
    for content in ["1", "2", "3", "4", "5"] {
        tree.run(&managed("/etc/a.conf", content, "0644")).unwrap();
    }
    let root = tree.root();
    let collect = |keep| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(gc(&root, keep, None, None))
    };
    std::fs::write(tree.at("/var/lib/bedplate/generations/2/record.json"), "{").unwrap();
    let error = collect(0).unwrap_err();
    assert!(error.message().contains("generation 2") && error.hints()[0].contains("mv "), "{error:?}");
    assert_eq!(Generations::new(&root).numbers().unwrap(), [1, 2, 3, 4, 5]);
    std::fs::remove_dir_all(tree.at("/var/lib/bedplate/generations/2")).unwrap();
    assert_eq!(collect(1).unwrap().generations, [1]);
    assert_eq!(collect(0).unwrap().generations, [3]);
    assert_eq!(Generations::new(&root).numbers().unwrap(), [4, 5]);
    assert!(tree.run(&managed("/etc/a.conf", "5", "0644")).unwrap().0.is_empty());
}

#[test]
fn a_second_run_learns_who_holds_the_host() {
    let tree = Tree::new();
    let held = provision::hold(&tree.root(), "provision `first`").unwrap();
    let error = tree.run(&one()).unwrap_err();
    assert!(error.message().contains(&format!("process {}", std::process::id())), "{error:?}");
    assert!(error.message().contains("provision `first`"));
    drop(held);
    tree.run(&one()).unwrap();
}

#[test]
fn a_link_in_the_way_stops_it_before_anything_changes() {
    let tree = Tree::new();
    tree.put("/elsewhere/x", "", 0o644);
    std::os::unix::fs::symlink("/elsewhere", tree.at("/etc/d")).unwrap();
    let before = tree.outside();
    let error = tree.run(&one()).unwrap_err();
    assert!(error.message().contains("`/etc/d` → `/elsewhere`"), "{error:?}");
    assert_eq!(tree.outside(), before);
    assert!(!tree.at("/var/lib/bedplate/generations").exists());
}

#[test]
fn a_full_disk_leaves_no_half_and_the_next_run_goes_on() {
    struct Small(PathBuf);
    impl Drop for Small {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let tree = Tree::new();
    let small = Small(tree.at("/etc"));
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small.0).status();
    assert!(mounted.unwrap().success(), "this test mounts a small tmpfs: run it as root");
    tree.put("/etc/a.conf", "was there", 0o644);
    let large =
        managed("/etc/a.conf", "small", "0644") + &managed("/etc/big.conf", &"x".repeat(200_000), "0644");
    let error = tree.run(&large).unwrap_err();
    assert!(error.message().contains("`+ file /etc/big.conf"), "{error:?}");
    assert!(error.causes().join(" ").contains("no space left"), "{error:?}");
    assert!(!tree.at("/etc/big.conf").exists());
    let (plan, outcome) = tree.run(&managed("/etc/c.conf", "small", "0644")).unwrap();
    assert!(plan.finishes.is_some_and(|text| text.contains("generation 1 was interrupted")));
    assert_eq!(outcome.generation, 2);
    assert_eq!(tree.text("/etc/a.conf"), "was there");
    tree.is_tidy();
}

#[test]
fn the_umask_changes_no_mode() {
    let mut seen = Vec::new();
    for mask in ["0", "077"] {
        let tree = Tree::new();
        tree.put("/etc/was.conf", "was there", 0o644);
        assert!(killed::child(&tree, &two(), &[("MASK", mask)]).wait().unwrap().success());
        let mut all = BTreeMap::new();
        walk(tree.folder.path(), tree.folder.path(), &mut all);
        all.retain(|_, shown| !shown.contains("created"));
        seen.push(all.into_iter().map(|(path, shown)| format!("{path} {}", &shown[..6])).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn nobody_goes_to_a_generation_that_was_never_made_whole() {
    let tree = Tree::new();
    tree.run(&one()).unwrap();
    tree.run(&two()).unwrap();
    tree.run(&one()).unwrap();
    let root = tree.root();
    let state = tree.at("/var/lib/bedplate/generations/2/state");
    std::fs::write(&state, "pending\n").unwrap();
    let error = provision::switch_to(&root, 2).unwrap_err();
    assert!(error.message().contains("never made whole"), "{error:?}");
    // Nor one who asks past that: nothing is written then.
    let plan = Plan::without_steps(2, plan::Change::Switch);
    let bundle = bundle(&two());
    let ready = super::generations::Ready {
        profile: "t",
        lock: bundle.digest(),
        bundle: bundle.digest(),
        files: bundle.files(),
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    let error = super::generations::prepare(&root, &plan, &ready).unwrap_err();
    assert!(error.message().contains("never made whole"), "{error:?}");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "pending\n");
}

#[test]
fn a_credential_goes_with_the_last_generation_that_names_it() {
    let tree = Tree::new();
    for content in ["1", "2", "3"] {
        tree.run(&managed("/etc/a.conf", content, "0644")).unwrap();
    }
    let record = |number: u64, names: &[(&str, bool)]| {
        let path = tree.at(&format!("/var/lib/bedplate/generations/{number}/record.json"));
        let mut record: plan::Record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (name, ours) in names {
            let owned = plan::OwnedSecret { credential: Some((*name).to_owned()), ours: *ours, wanted: true };
            record.secrets.insert((*name).to_owned(), owned);
        }
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    };
    let credential = |name: &str| format!("/var/lib/bedplate/credentials/{name}.cred");
    for name in ["A", "B", "theirs"] {
        tree.put(&credential(name), "sealed", 0o600);
    }
    record(1, &[("A", true), ("B", true), ("theirs", false)]);
    record(2, &[("B", true)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let collected = runtime.block_on(gc(&tree.root(), 0, None, None)).unwrap();
    assert_eq!((collected.generations, collected.credentials), (vec![1], vec!["A".to_owned()]));
    let there = ["A", "B", "theirs"].map(|name| tree.at(&credential(name)).exists());
    assert_eq!(there, [false, true, true]);
}
