//! Deployments on a real Docker daemon.

mod host;
mod loaded;
mod noexec;

use std::{collections::BTreeMap, net::TcpListener, os::unix::fs::MetadataExt, time::Duration};

use bedplate::{
    deploy::{Change, Options, life, up::Ended},
    docker::{Docker, NewContainer},
    error::Kind,
};
use futures_util::TryStreamExt;
use host::Host;
use secrecy::{ExposeSecret, SecretString};

use crate::support::free_port;

const LIMIT: Options = Options { wait: true, timeout: Duration::from_secs(60) };

fn engine(host: &Host, port: u16) -> String {
    let cache = host.state.path().join("cache");
    std::fs::create_dir_all(&cache).unwrap();
    format!(
        "name: demo\nengine: vllm\nmodel: org/echo\nport: {port}\napi_key: secret:API\nshm_size: 64m\nhf_cache: {}\n",
        cache.display()
    )
}

fn with_agent(host: &Host, port: u16) -> String {
    let home = host.state.path().join("minerhome");
    std::fs::create_dir_all(&home).unwrap();
    format!(
        "{}miner_client:\n  enabled: true\n  image: registry.example/agent:1.0\n  public_ip: 192.0.2.1\n  environment:\n    \
         MINER_TOKEN: secret:MINER_TOKEN\n    MINER_API_KEY: secret:MINER_API_KEY\n  volumes:\n    - {}:/root/.miner\n",
        engine(host, port),
        home.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployments_life() {
    let host = Host::new().await;
    let port = free_port();
    let text = with_agent(&host, port);
    let done = host.up(&text, LIMIT).await.unwrap();
    assert!(matches!(done.ended, Ended::Serving), "{done:#?}");
    let names: Vec<_> = done.changes.iter().map(|(name, change)| (name.as_str(), *change)).collect();
    assert_eq!(names, [("demo", Change::Created), ("miner-client", Change::Created)]);
    let agent = done.observed.agent.as_ref().unwrap().as_result().unwrap();
    assert_eq!(agent.ready, Some(200), "asked from inside, with its key");

    // Secrets: in the process, and nowhere else.
    for service in &done.observed.services {
        let exposure = service.exposure.as_result().unwrap();
        assert!(exposure.leaks.is_empty(), "{exposure:?}");
        assert_eq!(exposure.wanted, exposure.bound, "{}", service.name);
    }
    assert!(host.environment("demo").await.contains("VLLM_API_KEY=engine-key-0123456789\n"));
    for (container, variable, secret) in
        [("demo", "VLLM_API_KEY", "API"), ("demo-miner-client", "MINER_TOKEN", "MINER_TOKEN")]
    {
        let found = host.docker.inspect(container).await.unwrap().unwrap();
        let value = host.secrets[secret].expose_secret();
        assert!(!found.shown.contains(value) && !found.shown.contains(variable), "{container}");
        let pid = found.state.pid.unwrap();
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains(value), "{container}");
    }
    // The account is known to the image alone.
    let file = host.run.path().join("deployments/demo/demo/VLLM_API_KEY");
    let meta = std::fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (4711, 4712, 0o400));

    // Nothing changed, nothing done.
    let ids = (host.id("demo").await, host.id("demo-miner-client").await);
    let again = host.up(&text, LIMIT).await.unwrap();
    assert!(again.unchanged(), "{:?}", again.changes);
    assert_eq!(ids, (host.id("demo").await, host.id("demo-miner-client").await));

    // One setting changed, one container replaced.
    let changed = host.up(&text.replace("shm_size: 64m", "shm_size: 32m"), LIMIT).await.unwrap();
    assert!(matches!(changed.ended, Ended::Serving), "{changed:#?}");
    assert_eq!(changed.changes[0].1, Change::Replaced);
    assert_eq!(changed.changes[1].1, Change::Kept);
    assert_ne!(ids.0, host.id("demo").await);
    assert_eq!(ids.1, host.id("demo-miner-client").await);

    let status = life::status(host.context(), "demo").await.unwrap();
    assert_eq!(status.healthy, Some(true));
    assert!(status.drift.is_empty(), "{:?}", status.drift);
    assert_eq!(status.services[0].ports, [format!("127.0.0.1:{port}->{port}/tcp")]);
    let lines: Vec<_> =
        life::logs(host.context(), "demo", false, None).await.unwrap().try_collect().await.unwrap();
    assert!(lines.iter().any(|line| line.service == "demo" && line.text == format!("listening on {port}")));
    assert!(lines.iter().any(|line| line.service == "miner-client" && line.text.starts_with("agent on")));

    life::stop(host.context(), "demo").await.unwrap();
    assert_eq!(life::status(host.context(), "demo").await.unwrap().services[0].state, "exited");
    host.up(&text, LIMIT).await.unwrap();
    assert_eq!(life::status(host.context(), "demo").await.unwrap().services[0].state, "running");

    host.docker.remove("demo").await.unwrap();
    let drift = life::status(host.context(), "demo").await.unwrap().drift;
    assert!(drift[0].contains("is gone"), "{drift:?}");

    life::remove(host.context(), "demo", true).await.unwrap();
    assert!(host.docker.list_by_label("bedplate.deployment").await.unwrap().is_empty());
    assert!(!host.run.path().join("deployments/demo").exists());
    assert!(!host.state.path().join("deployments/demo").exists());
    assert!(host.state.path().join("minerhome").exists(), "directories of the host stay");
    assert_eq!(life::status(host.context(), "demo").await.unwrap_err().kind(), Kind::Usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_restarts_its_container() {
    let mut host = Host::new().await;
    let text = engine(&host, free_port());
    host.up(&text, LIMIT).await.unwrap();
    let id = host.id("demo").await;
    host.secrets.insert("API".into(), SecretString::from("another-key-0123"));
    let done = host.up(&text, LIMIT).await.unwrap();
    assert!(matches!(done.ended, Ended::Serving), "{done:#?}");
    assert_eq!(done.changes[0].1, Change::Restarted);
    assert_eq!(id, host.id("demo").await);
    assert!(host.environment("demo").await.contains("VLLM_API_KEY=another-key-0123\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_ends_the_wait_with_the_last_lines() {
    let host = Host::new().await;
    let text = format!("{}extra_args: [\"--crash\"]\n", engine(&host, free_port()));
    let begun = std::time::Instant::now();
    let done = host.up(&text, Options { wait: true, timeout: Duration::from_secs(300) }).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "it did not wait for what cannot come");
    assert!(matches!(&done.ended, Ended::Exited { service } if service == "demo"), "{done:#?}");
    let state = done.observed.services[0].state.as_result().unwrap();
    let lines = state.last_lines.join("\n");
    assert_eq!((state.running, state.exit_code), (false, Some(3)));
    assert!(lines.contains("CUDA out of memory"), "{lines}");
    assert!(lines.contains("<secret API>") && !lines.contains("engine-key"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_ready_says_why() {
    let mut host = Host::new().await;
    host.secrets.insert("MINER_TOKEN".into(), SecretString::from("unregistered"));
    let text = with_agent(&host, free_port());
    let done = host.up(&text, Options { wait: true, timeout: Duration::from_secs(5) }).await.unwrap();
    assert!(matches!(done.ended, Ended::TimedOut), "{done:#?}");
    let agent = done.observed.agent.as_ref().unwrap().as_result().unwrap();
    assert_eq!((agent.ready, agent.reason.as_deref()), (Some(503), Some("not registered")));
}

/// After a power cut Docker starts again what failed; without the launcher, which lies on tmpfs, it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn docker_cannot_go_round_the_gate_after_a_boot() {
    let mut host = Host::new().await;
    let text = engine(&host, free_port());
    host.up(&text, LIMIT).await.unwrap();

    // The daemon alone dies, not the host: the launcher is there, and Docker brings the container back itself. This
    // is what makes the second half mean something.
    host.dockerd.power_cut().await;
    host.docker = host.dockerd.connect().await;
    assert!(runs_within(&host.docker, "demo", Duration::from_secs(15)).await, "Docker restarts by itself");

    // A boot: tmpfs is empty.
    std::fs::remove_dir_all(host.run.path().join("deployments")).unwrap();
    std::fs::remove_file(host.run.path().join("launch")).unwrap();
    host.dockerd.power_cut().await;
    host.docker = host.dockerd.connect().await;
    assert!(!runs_within(&host.docker, "demo", Duration::from_secs(8)).await, "nothing opened the gate");

    // Behind the gate it comes back as it was, in the same container.
    let id = host.id("demo").await;
    let done = host.up(&text, LIMIT).await.unwrap();
    assert!(matches!(done.ended, Ended::Serving), "{done:#?}");
    assert_eq!(done.changes[0].1, Change::Started);
    assert_eq!(id, host.id("demo").await);
}

async fn runs_within(docker: &Docker, container: &str, limit: Duration) -> bool {
    let begun = std::time::Instant::now();
    while begun.elapsed() < limit {
        if docker.inspect(container).await.unwrap().is_some_and(|found| found.state.running) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_leaves_what_runs() {
    let host = Host::new().await;
    let port = free_port();
    let text = engine(&host, port);
    host.up(&text, LIMIT).await.unwrap();
    let id = host.id("demo").await;

    // A directory that is not there.
    let wrong = text.replace("hf_cache: ", "hf_cache: /nonexistent");
    let error = host.up(&wrong, LIMIT).await.unwrap_err();
    assert!(error.message().contains("is not there"), "{error}");
    assert!(error.hints()[0].contains("[[mount]]"), "{:?}", error.hints());
    assert_eq!(id, host.id("demo").await);

    // A secret without a value.
    let mut secrets = host.secrets.clone();
    secrets.remove("API");
    let host = Host { secrets, ..host };
    let error = host.up(&text, LIMIT).await.unwrap_err();
    assert!(error.hints()[0].contains("bedplate secret set API"), "{error:?}");
    assert_eq!(id, host.id("demo").await);
    assert!(host.docker.inspect(&id).await.unwrap().unwrap().state.running);

    // A name that is someone else's.
    life::remove(host.context(), "demo", true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let host = Host::new().await;
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let text = engine(&host, taken.local_addr().unwrap().port());
    let done = host.up(&text, LIMIT).await.unwrap();
    let Ended::NotStarted { service, error } = &done.ended else { panic!("{done:#?}") };
    assert_eq!(service, "demo");
    assert!(error.hints().iter().any(|hint| hint.contains("ss -ltnp")), "{error:?}");
    let state = done.observed.services[0].state.as_result().unwrap();
    assert!(!state.running && state.error.is_some(), "{state:?}");
}

/// The port the replacement wants is taken: the old container is put back and serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_cannot_start_gives_place_again() {
    let host = Host::new().await;
    let text = engine(&host, free_port());
    host.up(&text, LIMIT).await.unwrap();
    let id = host.id("demo").await;
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let done = host.up(&engine(&host, taken.local_addr().unwrap().port()), LIMIT).await.unwrap();
    assert!(matches!(&done.ended, Ended::NotStarted { service, .. } if service == "demo"), "{done:#?}");
    let seen = done.observed.services[0].state.as_result().unwrap();
    assert!(!seen.running && seen.error.as_ref().unwrap().contains("address already in use"), "{seen:?}");
    let found = host.docker.inspect("demo").await.unwrap().unwrap();
    assert!(found.id == id && found.state.running, "{:?}", found.state);
    assert_eq!(host.docker.list_by_label("bedplate.deployment=demo").await.unwrap().len(), 1);
    assert!(life::status(host.context(), "demo").await.unwrap().drift.is_empty());
    let again = host.up(&text, LIMIT).await.unwrap();
    assert!(again.unchanged() && matches!(again.ended, Ended::Serving), "{again:#?}");
}

/// What is left of an `up` that was cut off between its renames and the start is put right by the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_cut_off_is_ended() {
    let host = Host::new().await;
    let text = engine(&host, free_port());
    host.up(&text, LIMIT).await.unwrap();
    let id = host.id("demo").await;

    // Before the new one had its name: the old one comes back.
    host.docker.stop("demo", 1).await.unwrap();
    host.docker.rename("demo", "demo.bedplate-old").await.unwrap();
    let drift = life::status(host.context(), "demo").await.unwrap().drift;
    assert!(drift.iter().any(|line| line.contains("cut off")), "{drift:?}");
    let done = host.up(&text, LIMIT).await.unwrap();
    assert_eq!((done.changes[0].1, host.id("demo").await), (Change::Started, id.clone()));

    // After the new one was started: the old one goes.
    let left = NewContainer { name: "demo.bedplate-old".to_owned(), ..leftover(&host) };
    host.docker.create(&left).await.unwrap();
    let done = host.up(&text, LIMIT).await.unwrap();
    assert!(done.unchanged(), "{:?}", done.changes);
    assert!(host.docker.inspect("demo.bedplate-old").await.unwrap().is_none());

    // Before the new one was started: the old one comes back, and the new one goes.
    host.docker.stop("demo", 1).await.unwrap();
    host.docker.rename("demo", "demo.bedplate-old").await.unwrap();
    host.docker.create(&leftover(&host)).await.unwrap();
    let done = host.up(&text, LIMIT).await.unwrap();
    assert_eq!((done.changes[0].1, host.id("demo").await), (Change::Started, id));
}

/// A container of the deployment `demo`, made by nobody's `up`.
fn leftover(host: &Host) -> NewContainer {
    NewContainer {
        name: "demo".to_owned(),
        image: host.lock.images["vllm"].config.to_string(),
        entrypoint: vec!["/server".to_owned()],
        command: Vec::new(),
        environment: BTreeMap::new(),
        labels: BTreeMap::from([("bedplate.deployment".to_owned(), "demo".to_owned())]),
        network: "bedplate-demo".to_owned(),
        ..NewContainer::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_that_ended_well_is_done() {
    let host = Host::new().await;
    let text = format!(
        "{}extra_services:\n  prepare:\n    image: registry.example/agent:1.0\n    entrypoint: [/server, once]\n",
        engine(&host, free_port())
    );
    let done = host.up(&text, LIMIT).await.unwrap();
    assert!(matches!(done.ended, Ended::Serving), "{done:#?}");
    let seen = done.observed.services.iter().find(|seen| seen.name == "prepare").unwrap().clone();
    assert!(seen.done, "{seen:?}");
    let state = async || {
        let status = life::status(host.context(), "demo").await.unwrap();
        let service = status.services.iter().find(|service| service.service == "prepare").unwrap();
        (service.state.clone(), service.since.clone(), status.is_down())
    };
    let first = state().await;
    assert_eq!((first.0.as_str(), first.2), ("done", false));
    assert!(host.up(&text, LIMIT).await.unwrap().unchanged());
    assert_eq!(state().await, first, "it was not started again");

    // With the rest stopped it is started with the rest.
    life::stop_containers(host.context(), "demo").await.unwrap();
    assert!(life::status(host.context(), "demo").await.unwrap().is_down(), "it is still wanted");
    host.up(&text, LIMIT).await.unwrap();
    // Nothing waits for it, so it may still be at work.
    let mut again = state().await;
    for _ in 0..100 {
        if again.0 == "done" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        again = state().await;
    }
    assert!(again.0 == "done" && again.1 != first.1, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_long_ago_is_no_failure() {
    let host = Host::new().await;
    let text = engine(&host, free_port());
    host.up(&text, LIMIT).await.unwrap();
    let pid = host.docker.inspect("demo").await.unwrap().unwrap().state.pid.unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let begun = std::time::Instant::now();
    loop {
        let state = host.docker.inspect("demo").await.unwrap().unwrap().state;
        if state.restarts == 1 && state.running && !state.restarting {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "Docker restarts it: {state:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = host.docker.last_end("demo").await.unwrap().expect("the daemon has not forgotten");
    assert_eq!((end.exit_code, end.oom_killed), (137, false), "killed, though it runs again");
    let done = host.up(&text, LIMIT).await.unwrap();
    assert!(done.unchanged() && matches!(done.ended, Ended::Serving), "{done:#?}");
}
