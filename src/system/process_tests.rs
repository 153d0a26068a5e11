use std::time::Instant as Clock;

use super::*;

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

/// True while a process of this id exists and is no zombie.
fn alive(id: &str) -> bool {
    std::process::Command::new("ps").args(["-o", "stat=", "-p", id]).output().is_ok_and(|out| {
        let state = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        !state.is_empty() && !state.starts_with('Z')
    })
}

async fn gone(id: &str) -> bool {
    for _ in 0..100 {
        if !alive(id) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn output_status_and_input() {
    let output = sh("cat; echo said >&2; exit 3").stdin_bytes("secret").run().await.unwrap();
    assert_eq!(output.stdout, b"secret");
    assert_eq!(output.stderr_tail, "said");
    assert_eq!(output.status.code(), Some(3));
    assert!(!format!("{output:?}").contains("secret"));
    let error = output.check().unwrap_err();
    assert!(error.message().contains("exit status: 3: said"), "{error}");
    // A child that reads nothing of a large input still ends.
    assert!(sh("exit 0").stdin_bytes(vec![0; 1 << 20]).run().await.unwrap().success());
}

#[tokio::test]
async fn a_missing_program_names_its_package() {
    let error = Command::new("no-such-program-here").package("skopeo").run().await.unwrap_err();
    assert!(error.message().starts_with("`no-such-program-here` is not installed"), "{error}");
    assert_eq!(error.hints(), ["install it: `apt install skopeo`"]);
    let error = Command::new("/no/such/program").run().await.unwrap_err();
    assert_eq!(error.message(), "`/no/such/program` does not exist");
    let error = Command::new("/etc/passwd").run().await.unwrap_err();
    assert!(error.message().ends_with("permission denied"), "{error}");
    let error = sh("true").directory("/no/such/directory").run().await.unwrap_err();
    assert!(error.message().contains("no directory `/no/such/directory`"), "{error}");
}

#[tokio::test]
async fn a_slow_child_and_what_it_started_are_killed() {
    let directory = tempfile::tempdir().unwrap();
    let start = Clock::now();
    let error = sh("sleep 300 & echo $! > pid; echo working >&2; wait")
        .directory(directory.path())
        .timeout(Duration::from_millis(500))
        .run()
        .await
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(error.message().contains("took longer than 0.5 s and was ended: working"), "{error}");
    let id = crate::system::files::read_text(&directory.path().join("pid"), 100).unwrap();
    assert!(gone(id.trim()).await);
}

#[tokio::test]
async fn a_dropped_run_kills_the_child() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let run = sh("echo $$ > pid; exec sleep 300").directory(directory.path()).run();
    assert!(timeout(Duration::from_millis(500), run).await.is_err());
    let id = crate::system::files::read_text(&path, 100).unwrap();
    assert!(gone(id.trim()).await);
}

#[tokio::test]
async fn output_is_bounded() {
    let error = sh("yes").limit(1000).run().await.unwrap_err();
    assert!(error.message().contains("printed more than 1000 bytes"), "{error}");
    assert_eq!(sh("printf 12345").limit(5).run().await.unwrap().text(), "12345");
    let output = sh("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done").run().await.unwrap();
    assert!(output.stderr_tail.len() <= TAIL && output.stderr_tail.ends_with("line 2999"));
}

#[tokio::test]
async fn what_outlives_the_child_does_not_hold_us() {
    let start = Clock::now();
    let output = sh("sleep 5 & echo done").run().await.unwrap();
    assert_eq!(output.text(), "done");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn hidden_arguments_and_hushed_output_are_not_shown() {
    let error =
        sh("echo tok-123 >&2; exit 1").arg("x y").arg_hidden("tok-123").hush().check().await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        text.ends_with("'x y' … failed with exit status: 1") || text.contains("'x y' …` failed"),
        "{text}"
    );
    let shown = Command::new("helper").arg("get").arg_hidden("tok-123").to_string();
    assert_eq!(shown, "helper get …");
}

#[tokio::test]
async fn environment_can_be_clean() {
    let output = Command::new("env").env_clean().env("A", "1").check().await.unwrap();
    let mut names: Vec<String> =
        output.text().lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    names.sort();
    assert_eq!(names, ["A", "LC_ALL", "PATH"]);
}

#[tokio::test]
async fn lines_come_while_it_runs() {
    let mut run = sh("echo one; read x; echo \"two $x\"; printf last; echo end >&2; exit 4")
        .stdin_bytes("in\n")
        .stream()
        .unwrap();
    let mut lines = Vec::new();
    while let Some(line) = run.next_line().await.unwrap() {
        lines.push(line);
    }
    assert_eq!(lines, ["one", "two in", "last"]);
    let output = run.finish().await.unwrap();
    assert_eq!((output.status.code(), output.stderr_tail.as_str()), (Some(4), "end"));

    let mut run = sh("echo first; sleep 300").timeout(Duration::from_millis(400)).stream().unwrap();
    assert_eq!(run.next_line().await.unwrap().as_deref(), Some("first"));
    assert!(run.next_line().await.unwrap_err().message().contains("took longer"));
}

#[tokio::test]
async fn long_lines_are_cut() {
    let mut run = sh("head -c 200000 /dev/zero | tr '\\0' x; echo; echo next").stream().unwrap();
    assert_eq!(run.next_line().await.unwrap().unwrap().len(), LINE);
    assert_eq!(run.next_line().await.unwrap().as_deref(), Some("next"));
    assert_eq!(run.next_line().await.unwrap(), None);
}
