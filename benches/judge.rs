//! How long the facts of 10,000 hosts take to be read and judged: `cargo bench --bench judge`.
//!
//! The facts are those of this machine, gathered once for the shipped profile with eight GPUs and its deployment, and
//! recorded; each host's file differs in its memory, so that no two are the same text.

use std::{hint::black_box, path::Path, sync::Arc, time::Instant};

use bedplate::{
    check::{Subject, judge_only, registry},
    host::facts::{
        Known, Sources, gather,
        record::{self, Words},
    },
    profile::{self, deployment},
    system::files::Root,
};

const HOSTS: u64 = 10_000;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| bedplate::system::files::read_text(&here.join(path), 1 << 20).expect(path);
    let profile = profile::parse("h100-vllm.toml", &text("profiles/h100-vllm.toml")).expect("the profile");
    let qwen = deployment::parse("qwen72b.yaml", &text("deployments/qwen72b.yaml"))
        .expect("the deployment")
        .deployment;
    let subject = Subject::new("host", &profile, None, vec![&qwen]).expect("the subject");
    let words = Words::of(&subject.wanted);
    let root = Arc::new(Root::open(Path::new("/")).expect("the root directory"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut facts = runtime.block_on(Box::pin(gather(&subject.wanted, &Sources::of(root))));

    let files: Vec<String> = (0..HOSTS)
        .map(|host| {
            if let Known::Ok(memory) = &mut facts.memory {
                memory.available = host << 20;
            }
            record::write(&facts, &words, "host").expect("a recording")
        })
        .collect();
    let bytes: usize = files.iter().map(String::len).sum();

    let started = Instant::now();
    let hosts: Vec<_> = files
        .iter()
        .map(|file| record::read(file.as_bytes(), &words, "facts").expect("facts").facts)
        .collect();
    let read = started.elapsed();
    // Each by itself, so that none is skipped for another's sake.
    let ids: Vec<&str> = registry().iter().map(|check| check.id).collect();
    let one = |facts, id| black_box(judge_only(&[id], &subject, facts)).findings.len();
    let started = Instant::now();
    let findings: usize = hosts.iter().map(|facts| ids.iter().map(|id| one(facts, *id)).sum::<usize>()).sum();
    let judged = started.elapsed();
    println!(
        "{HOSTS} hosts, {} KiB each: read in {} ms, judged in {} ms ({findings} findings)",
        bytes / files.len() / 1024,
        read.as_millis(),
        judged.as_millis()
    );
}
