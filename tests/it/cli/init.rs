//! `init`: a profile and a deployment to start from, and what is moved out of an old file.

use super::{Place, TOKEN, snapshot};
use crate::support::{
    faulty::{Content, Faulty},
    image::ImageSpec,
};

const NEW: [&str; 6] = ["init", "qwen", "--engine", "vllm", "--model", "Qwen/Qwen2.5-7B-Instruct"];

#[tokio::test(flavor = "multi_thread")]
async fn what_it_writes_can_be_locked_and_prepared() {
    let image = ImageSpec::default().build();
    let mut content = Content::image("vllm", "1", &image);
    content.add_image("smoke", "1", &image);
    let server = Faulty::start(content, Box::new(|_, _| None)).await;
    let place = Place::new();
    let shown = place.run(NEW.into_iter().chain(["--dry-run"]));
    shown.exits(0).says("would write profiles/qwen.toml").prints("Qwen/Qwen2.5-7B-Instruct");
    assert!(snapshot(&place.at("profiles")).is_empty());
    place.run(NEW).exits(0).says("wrote profiles/qwen.toml").says("next: ");
    place.refuses(NEW, 2, &["profiles/qwen.toml", "is there already"], "--force");
    place.run(NEW.into_iter().chain(["--force"])).exits(0);
    place.run(["render", "-f", "deployments/qwen.yaml"]).exits(0).prints("Qwen/Qwen2.5-7B-Instruct");

    let text = place.text("profiles/qwen.toml");
    let images: String = text
        .lines()
        .map(|line| {
            let local = |name: &str| format!("{name} = \"{}/{name}:1\"\n", server.host);
            match line.split(" = ").next().unwrap() {
                name @ ("vllm" | "smoke") => local(name),
                // Archives are for other tests.
                "release" => format!("{line}\npin-packages = false\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect();
    place.put("profiles/qwen.toml", images);
    place.run(["lock"]).exits(0).says("locked 2 images");
    place.run(["lock", "--check"]).exits(0);
    place.run(["bundle", "-o", "qwen.tar"]).exits(0).prints("sha256:");
    std::fs::create_dir_all(place.at("root/etc")).unwrap();
    place.run(["provision", "--root", "root", "--dry-run"]).exits(0).prints("/data/huggingface");
}

#[test]
fn names_and_models_that_could_be_anything() {
    let place = Place::new();
    for name in ["../x", "", ".x", "a/b", "a b", "-x\n", &"x".repeat(64)] {
        let ran = place.run(["init", "--engine", "vllm", "--model", "m", "--", name]);
        ran.is_refusal(2, &["cannot be a name"], "letter or digit");
    }
    for model in ["a\"b", "a\nb", "'", "${X}", "a: b", "# x", "\u{7f}", "ü"] {
        let ran = place.run(["init", "x", "--force", "--engine", "vllm", "--model", model]);
        match ran.code {
            Some(0) => {
                place.run(["render", "-f", "deployments/x.yaml"]).exits(0);
            }
            _ => ran.is_refusal(2, &[], ""),
        }
    }
    place.refuses(["init", "y"], 2, &["needs `--engine`"], "--engine vllm");
    place.refuses(["init", "y", "--engine", "vllm"], 2, &["needs `--model`"], "--model");
    place.refuses(["init"], 2, &["needs a name"], "bedplate init NAME");
}

#[test]
fn literals_of_an_old_file_move_to_private_files() {
    let other = format!("{TOKEN}Zz9");
    let place = Place::new();
    place.put(
        "old.yaml",
        format!(
            "# our first model\nname: old\nengine: vllm\nmodel: a/b\nenv:\n  HF_TOKEN: {TOKEN}\n  WANDB_API_KEY: \"{other}\"\n  \
             PLAIN: yes-please\nminer_client:\n  enabled: true\n  image: registry.example/agent:1.0\n  \
             public_ip: 192.0.2.1\n  host_port: 8080\n"
        ),
    );
    let old = place.text("old.yaml");
    let dry = place.run(["init", "--from", "old.yaml", "--dry-run"]);
    dry.exits(0).says("would write");
    assert!(!place.at("secrets").exists());

    let ran = place.run(["init", "--from", "old.yaml"]);
    ran.exits(0).says("changed: ").says("wrote deployments/old.yaml").says("wrote secrets/HF_TOKEN");
    assert_eq!(place.text("old.yaml"), old, "the file it started from is not touched");
    assert_eq!(place.text("secrets/HF_TOKEN").trim(), TOKEN);
    assert_eq!(place.text("secrets/WANDB_API_KEY").trim(), other);
    assert_eq!(place.mode("secrets"), 0o700);
    for path in snapshot(&place.at("secrets")).into_keys() {
        assert_eq!(place.mode(&format!("secrets/{path}")), 0o600, "{path}");
    }
    let elsewhere = ["profiles/old.toml", "deployments/old.yaml", "secrets/.gitignore"];
    for path in elsewhere {
        assert!(!place.text(path).contains(TOKEN), "{path}");
    }
    let new = place.text("deployments/old.yaml");
    assert!(new.starts_with("# our first model\n") && new.contains("PLAIN: yes-please"), "{new}");
    // What agents write to keep their identity has a place.
    assert!(new.contains("volumes:"), "{new}");
    place.run(["render", "-f", "deployments/old.yaml"]).exits(0).prints("HF_TOKEN");
    let ran = place.run(["secret", "check", "old"]);
    ran.says("`MINER_TOKEN` is not set here");
    assert!(
        !ran.err.contains("HF_TOKEN") && !ran.err.contains("WANDB_API_KEY"),
        "they are found: {}",
        ran.err
    );
    // A second time nothing is overwritten unasked.
    place.refuses(["init", "--from", "old.yaml"], 2, &["is there already"], "--force");
}
