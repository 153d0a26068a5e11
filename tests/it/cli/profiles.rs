//! Profiles and deployments that say something wrong: the line, what is wrong, what to write instead.

use super::{Place, TOKEN, profile};

/// A profile that is wrong, what is said of it, and the hint.
fn wrong_profiles() -> Vec<(String, Vec<&'static str>, &'static str)> {
    let private = |mode: &str, file: &str| {
        profile(
            "",
            &format!(
                "[[mount]]\npath = \"/data/m\"\nmode = \"{mode}\"\nfiles = {{ \"config.json\" = \"{file}\" }}"
            ),
        )
    };
    let mounts = |a: &str, b: &str| {
        profile(
            "",
            &format!(
                "[[mount]]\npath = \"{a}\"\nmode = \"0755\"\n[[mount]]\npath = \"{b}\"\nmode = \"0755\"\n"
            ),
        )
    };
    vec![
        (profile("", "[checks]\ndisk-free-gb = 1"), vec!["unknown key `disk-free-gb`"], "`disk-free-gib`"),
        (profile("", "[chekcs]\n"), vec!["`chekcs`"], "did you mean `checks`?"),
        (
            profile("", "[checks]\ndisk-free-gib = \"10\""),
            vec!["is a string, wanted a whole number"],
            "write a whole number",
        ),
        (profile("", "[deploy]\ndeployments = \"x.yaml\""), vec!["is a string, wanted a list"], "brackets"),
        (private("0700", "0777"), vec!["mode `0777` of a private file"], "0600"),
        (private("0777", "0600"), vec!["mode `0777` of a directory that holds private files"], "0700"),
        (
            mounts("/data", "/data/huggingface"),
            vec!["`/data/huggingface` and `/data`", "overlap"],
            "one mount",
        ),
        (mounts("/data", "/data"), vec!["`/data` and `/data`", "overlap"], "one mount"),
        (
            profile("", &format!("[secrets]\nHF_TOKEN = \"{TOKEN}\"")),
            vec!["secret `HF_TOKEN` is written into the profile"],
            "HF_TOKEN = { env = \"HF_TOKEN\" }",
        ),
        (
            profile("", &format!("[[file]]\npath = \"/etc/x\"\ncontent = \"t={TOKEN}\"")),
            vec!["`file.content` holds what looks like a secret"],
            "[secrets]",
        ),
        (
            profile("", &format!("[secrets]\nX = {{ command = [\"echo\", \"{TOKEN}\"] }}")),
            vec!["`secrets.X.command` holds what looks like a secret"],
            "",
        ),
        (profile(&format!("vllm = \"x/y:{TOKEN}\""), ""), vec!["`images.vllm`"], ""),
        // The line that does not parse is the one with the token.
        (profile("", &format!("[secrets]\nHF_TOKEN = \"{TOKEN}")), vec!["not valid TOML"], ""),
        (profile("", &format!("[secrets]\nHF_TOKEN = {TOKEN}")), vec!["not valid TOML"], ""),
        (
            profile("vllm = \"vllm/vllm-openai:latest\"", ""),
            vec!["`images.vllm` has a floating tag"],
            "floating = true",
        ),
        (
            profile("vllm = \"Not An Image\"", ""),
            vec!["`Not An Image` is not an image reference"],
            "registry.example",
        ),
        (profile("", "").replace("schema = 1", "schema = 9"), vec!["newer bedplate"], "update bedplate"),
        (profile("", "").replace("schema = 1", ""), vec!["`schema` is missing"], "schema = 1"),
        (profile("", "").replace("\"debian\"", "\"gentoo\""), vec!["gentoo"], "debian"),
        (profile("", "[[mount]]\npath = \"data/../etc\"\nmode = \"0700\""), vec!["data/../etc"], ""),
        (
            profile("", "[deploy]\ndeployments = [\"../deployments/none.yaml\"]"),
            vec!["none.yaml"],
            "spelling",
        ),
        (profile("", "[[file]]\npath = \"/etc/x\"\nsource = \"none.conf\""), vec!["none.conf"], "spelling"),
    ]
}

#[test]
fn a_wrong_profile_is_refused_by_every_verb() {
    for (text, says, hint) in wrong_profiles() {
        println!("{}", text.rsplit_once("[images]").unwrap().1);
        let place = Place::new();
        place.put("profiles/p.toml", &text);
        for verb in
            [&["lock", "p"][..], &["-vv", "lock", "p", "--check"], &["provision", "p", "--root", "home"]]
        {
            place.refuses(verb.iter().copied(), 2, &says, hint);
        }
        for verb in [&["bundle", "p", "-o", "x.tar"][..], &["secret", "check", "p"], &["doctor", "p"]] {
            place.refuses(verb.iter().copied(), 2, &says, hint);
        }
    }
}

#[test]
fn the_line_is_shown() {
    let place = Place::new();
    place.put("profiles/p.toml", profile("", "[checks]\ndisk-free-gb = 1\ndisk-free = 2"));
    let ran = place.refuses(["lock", "p"], 2, &["profiles/p.toml:20:1", "disk-free-gb = 1"], "disk-free-gib");
    // All that is wrong is said at once.
    ran.says("profiles/p.toml:21:1").says("unknown key `disk-free`");
}

/// Lines after `name`, `engine` and `model` of a deployment, what is said of them, and the hint.
fn wrong_deployments() -> Vec<(String, Vec<&'static str>, &'static str)> {
    vec![
        ("tensor_paralel: 2".into(), vec!["unknown key `tensor_paralel`"], "`tensor_parallel`"),
        ("port: [8001]".into(), vec!["`port` is a list"], "write a whole number"),
        ("port: 70000".into(), vec!["`port`"], ""),
        ("extra_args: --a".into(), vec!["`extra_args` is a string"], "brackets"),
        (
            format!("hf_token_env: {TOKEN}"),
            vec!["`hf_token_env` is not a secret's name"],
            "hf_token_env: HF_TOKEN",
        ),
        (
            format!("env:\n  HF_TOKEN: {TOKEN}"),
            vec!["`env.HF_TOKEN` holds a literal secret"],
            "bedplate init --from",
        ),
        (format!("env:\n  X: {TOKEN}"), vec!["`env.X` holds a literal secret"], "secret:X"),
        (format!("api_key: {TOKEN}"), vec!["`api_key`"], "secret:"),
        (
            format!("extra_args: [--hf-token={TOKEN}]"),
            vec!["`extra_args` holds a literal secret"],
            "secret:NAME",
        ),
        (format!("env: {{X: {TOKEN}"), vec!["not valid YAML"], ""),
        (format!("\tenv: {TOKEN}"), vec!["YAML"], ""),
        ("publish: 0.0.0.0".into(), vec!["publish"], "api_key"),
        (
            "custom_service:\n  image: a:1\n  volumes: [\"/data/a:/x\", \"/data/a:/x\"]".into(),
            vec!["two volumes are mounted at `/x`"],
            "keep one",
        ),
        ("--- \nname: two".into(), vec!["document"], ""),
        ("name: again".into(), vec!["name"], ""),
    ]
}

#[test]
fn a_wrong_deployment_is_refused_by_every_verb() {
    for (lines, says, hint) in wrong_deployments() {
        println!("{lines}");
        let place = Place::with("", "");
        place.put("deployments/d.yaml", format!("name: d\nengine: vllm\nmodel: a/b\n{lines}\n"));
        place.put(
            "profiles/q.toml",
            profile("vllm = \"127.0.0.1:1/a:1\"", "[deploy]\ndeployments = [\"../deployments/d.yaml\"]"),
        );
        for verb in [
            &["render", "-f", "deployments/d.yaml"][..],
            &["lock", "q", "-vv"],
            &["doctor", "p", "-f", "deployments/d.yaml"],
            &["runtime", "prepare", "--profile", "p", "--engine", "vllm", "-f", "deployments/d.yaml"],
        ] {
            place.refuses(verb.iter().copied(), 2, &says, hint);
        }
    }
}

#[test]
fn what_an_engine_is_for() {
    let place = Place::with("vllm = \"127.0.0.1:1/a:1\"", "");
    place.put("deployments/d.yaml", "name: d\nengine: vllm\nmodel: a/b\n");
    let arguments =
        ["runtime", "prepare", "--profile", "p", "--engine", "sglang", "-f", "deployments/d.yaml"];
    place.refuses(arguments, 2, &["deployment `d` is for vllm, not sglang"], "--engine vllm");
    let arguments = ["runtime", "prepare", "--profile", "p", "--engine", "vllm"];
    place.refuses(arguments, 2, &["no such deployment"], "-f DEPLOYMENT");
}
