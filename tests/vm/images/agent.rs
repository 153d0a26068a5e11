//! A stand-in for the node agent: keeps an identity in `${MINER_HOME}/config.json` and tells whether the engine is
//! healthy. The keys are random bytes of the right length, not real key pairs.
//!
//! Environment: `MINER_HOME` (default `/root/.miner`), `MINER_HTTP_HOST` (`127.0.0.1`), `MINER_HTTP_PORT` (8080),
//! `MINER_VLLM_BASE_URL`, `MINER_PUBLIC_IP`, `MINER_TOKEN`, `MINER_API_KEY` (asked for on POST when it is set).

mod http;

use http::{Answer, Request, quote};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why the engine is not healthy; `None` once it is.
static ENGINE: Mutex<Option<String>> = Mutex::new(None);

struct Agent {
    node_public: String,
    wallet_public: String,
    token: bool,
    api_key: Option<String>,
    public_ip: String,
    deployment: String,
    engine: String,
}

fn env(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

fn main() {
    http::end_on_sigterm();
    let home = PathBuf::from(env("MINER_HOME", "/root/.miner"));
    let identity = identity(&home).unwrap_or_else(|error| {
        eprintln!("ERROR: identity in {}: {error}", home.display());
        std::process::exit(1);
    });
    let public = |key: &str| http::last_string(&identity, key).unwrap_or_default();
    let agent = Agent {
        node_public: public("node_public_key"),
        wallet_public: public("wallet_public_key"),
        token: !env("MINER_TOKEN", "").is_empty(),
        api_key: Some(env("MINER_API_KEY", "")).filter(|key| !key.is_empty()),
        public_ip: env("MINER_PUBLIC_IP", ""),
        deployment: env("MODELDOCK_DEPLOYMENT_NAME", ""),
        engine: env("MINER_VLLM_BASE_URL", ""),
    };
    println!("INFO: node {} of deployment {}", agent.node_public, agent.deployment);
    let health = format!("{}/health", agent.engine);
    set_engine(Some(format!("the engine at {} was not asked yet", agent.engine)));
    std::thread::spawn(move || {
        loop {
            set_engine(match http::get_status(&health) {
                Ok(200) => None,
                Ok(status) => Some(format!("the engine's /health answers {status}")),
                Err(error) => Some(format!("the engine cannot be asked: {error}")),
            });
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let address = format!("{}:{}", env("MINER_HTTP_HOST", "127.0.0.1"), env("MINER_HTTP_PORT", "8080"));
    println!("INFO: listening on {address}");
    http::serve(&address, move |request| respond(&agent, request));
}

fn set_engine(state: Option<String>) {
    if let Ok(mut held) = ENGINE.lock() {
        if *held != state {
            println!("INFO: {}", state.as_deref().unwrap_or("the engine is healthy"));
        }
        *held = state;
    }
}

fn respond(agent: &Agent, request: &Request) -> Answer {
    let engine = ENGINE.lock().ok().and_then(|held| held.clone());
    let reason =
        if agent.token { engine.clone() } else { Some("not registered: MINER_TOKEN is not set".to_owned()) };
    if request.method == "POST" && agent.api_key.is_some() && request.bearer != agent.api_key {
        return (401, r#"{"error":"unauthorized"}"#.into());
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/healthz") => (200, r#"{"status":"ok"}"#.into()),
        ("GET", "/readyz") => match reason {
            None => (200, r#"{"ready":true}"#.into()),
            Some(reason) => (503, format!(r#"{{"ready":false,"reason":{}}}"#, quote(&reason))),
        },
        ("GET", "/v1/miner/status") => (
            200,
            format!(
                r#"{{"deployment":{},"public_ip":{},"registered":{},"engine_healthy":{},"upstream":{}}}"#,
                quote(&agent.deployment),
                quote(&agent.public_ip),
                agent.token,
                engine.is_none(),
                quote(&agent.engine)
            ),
        ),
        ("GET", "/v1/miner/identity") => (
            200,
            format!(
                r#"{{"node_public_key":{},"wallet_public_key":{}}}"#,
                quote(&agent.node_public),
                quote(&agent.wallet_public)
            ),
        ),
        ("POST", "/v1/miner/register" | "/v1/miner/heartbeat" | "/v1/miner/challenge") => {
            (200, r#"{"accepted":true}"#.into())
        }
        _ => (404, r#"{"error":"not found"}"#.into()),
    }
}

/// The text of `config.json`: the one there is, else a new one, 0600 from its first byte.
fn identity(home: &Path) -> std::io::Result<String> {
    let path = home.join("config.json");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o7777;
        println!("INFO: identity kept from {}, mode {mode:04o}", path.display());
        return Ok(text);
    }
    std::fs::create_dir_all(home)?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let text = format!(
        concat!(
            "{{\n  \"created\": {},\n",
            "  \"node_key\": {{ \"type\": \"ed25519\", \"node_private_key\": \"{}\", \"node_public_key\": \"{}\" }},\n",
            "  \"wallet_key\": {{ \"type\": \"secp256k1\", \"wallet_private_key\": \"{}\", \"wallet_public_key\": \"02{}\" }}\n}}\n"
        ),
        created,
        random_hex(32)?,
        random_hex(32)?,
        random_hex(32)?,
        random_hex(32)?,
    );
    let next = home.join(".config.json.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, &path)?;
    println!("INFO: new identity in {}", path.display());
    Ok(text)
}

fn random_hex(bytes: usize) -> std::io::Result<String> {
    let mut buffer = vec![0_u8; bytes];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}
