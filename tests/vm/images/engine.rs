//! A stand-in for an inference engine, for machines without a GPU: takes vLLM's arguments and answers its API. Its
//! answers come from the request, not from a model.
//!
//! `vllm serve MODEL [--host H] [--port P] [vLLM's other options: ignored]`
//!
//! | option of its own | what it does |
//! |---|---|
//! | `--loading-seconds N` (or `ENGINE_LOADING_SECONDS`) | time until `/health` answers 200; default 1 |
//! | `--fail-with TEXT` | prints a traceback that ends in TEXT, exits 1 |
//! | `--never-ready` | `/health` stays 503 |

mod http;

use http::{Answer, Request, quote};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static READY: AtomicBool = AtomicBool::new(false);
static SERVED: AtomicU64 = AtomicU64::new(0);
static SETTINGS: OnceLock<Settings> = OnceLock::new();

#[derive(Default)]
struct Settings {
    model: String,
    host: String,
    port: String,
    tensor_parallel: String,
    dtype: String,
    max_model_len: String,
    loading: f64,
    fail_with: Option<String>,
    never_ready: bool,
    api_key: Option<String>,
}

fn settings() -> Settings {
    let mut out = Settings {
        host: "0.0.0.0".into(),
        port: "8000".into(),
        tensor_parallel: "1".into(),
        dtype: "auto".into(),
        max_model_len: "2048".into(),
        loading: std::env::var("ENGINE_LOADING_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1.0),
        api_key: std::env::var("VLLM_API_KEY").ok().filter(|key| !key.is_empty()),
        ..Settings::default()
    };
    let mut args = std::env::args().skip(1).peekable();
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (arg, None),
        };
        let mut value =
            || inline.clone().or_else(|| args.next_if(|next| !next.starts_with("--"))).unwrap_or_default();
        match name.as_str() {
            "serve" => {}
            "--model" => out.model = value(),
            "--host" => out.host = value(),
            "--port" => out.port = value(),
            "--tensor-parallel-size" => out.tensor_parallel = value(),
            "--dtype" => out.dtype = value(),
            "--max-model-len" => out.max_model_len = value(),
            "--loading-seconds" => out.loading = value().parse().unwrap_or(1.0),
            "--fail-with" => out.fail_with = Some(value()),
            "--never-ready" => out.never_ready = true,
            "--trust-remote-code" => {}
            other if other.starts_with("--") => {
                let value = value();
                println!("INFO: option {other} {value} is not for this engine: ignored");
            }
            other => out.model = other.to_owned(),
        }
    }
    out
}

fn main() {
    http::end_on_sigterm();
    let given = settings();
    if given.model.is_empty() {
        eprintln!("usage: vllm serve MODEL [options]");
        std::process::exit(2);
    }
    let version = std::env::var("ENGINE_VERSION").unwrap_or_else(|_| "0".into());
    println!("INFO: vLLM API server version {version} (stand-in without a GPU)");
    println!(
        "INFO: Initializing an LLM engine with config: model='{}', dtype={}, tensor_parallel_size={}, max_seq_len={}",
        given.model, given.dtype, given.tensor_parallel, given.max_model_len
    );
    println!("INFO: Starting to load model {}...", given.model);
    if let Some(text) = &given.fail_with {
        std::thread::sleep(Duration::from_millis(200));
        eprintln!("Traceback (most recent call last):");
        eprintln!(
            "  File \"/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py\", line 613, in run_engine_core"
        );
        eprintln!("    raise e");
        eprintln!("RuntimeError: {text}");
        std::process::exit(1);
    }
    let address = format!("{}:{}", given.host, given.port);
    let given = SETTINGS.get_or_init(|| given);
    std::thread::spawn(move || {
        if given.never_ready {
            println!("INFO: Loading safetensors checkpoint shards:   0% Completed | 0/1");
            return;
        }
        std::thread::sleep(Duration::from_secs_f64(given.loading));
        println!("INFO: Loading safetensors checkpoint shards: 100% Completed | 1/1");
        println!("INFO: Application startup complete.");
        READY.store(true, Ordering::SeqCst);
    });
    println!("INFO: Starting vLLM API server on http://{address}");
    http::serve(&address, move |request| respond(given, request));
}

fn respond(given: &Settings, request: &Request) -> Answer {
    let ready = READY.load(Ordering::SeqCst);
    if request.path.starts_with("/v1/") && given.api_key.is_some() && request.bearer != given.api_key {
        return (401, r#"{"error":"Unauthorized"}"#.into());
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") if ready => (200, String::new()),
        ("GET", "/metrics") => (
            200,
            format!(
                "# TYPE vllm:request_success_total counter\nvllm:request_success_total{{model_name={}}} {}\n",
                quote(&given.model),
                SERVED.load(Ordering::SeqCst)
            ),
        ),
        ("GET", "/health") => (503, String::new()),
        (_, path) if !ready && path.starts_with("/v1/") => (503, r#"{"error":"still loading"}"#.into()),
        ("GET", "/v1/models") => (
            200,
            format!(
                r#"{{"object":"list","data":[{{"id":{},"object":"model","created":{},"owned_by":"vllm","max_model_len":{}}}]}}"#,
                quote(&given.model),
                seconds(),
                given.max_model_len.parse::<u64>().unwrap_or(2048)
            ),
        ),
        ("POST", "/v1/chat/completions") => chat(given, request),
        _ => (404, r#"{"error":"Not Found"}"#.into()),
    }
}

fn chat(given: &Settings, request: &Request) -> Answer {
    let asked = http::last_string(&request.body, "model").unwrap_or_default();
    if asked != given.model {
        return (404, format!(r#"{{"error":{}}}"#, quote(&format!("The model `{asked}` does not exist."))));
    }
    let Some(said) = http::last_string(&request.body, "content") else {
        return (400, r#"{"error":"no message with content"}"#.into());
    };
    let answer = format!(
        "You said {} words: {}",
        said.split_whitespace().count(),
        said.split_whitespace().rev().collect::<Vec<_>>().join(" ")
    );
    let (prompt, completion) = (said.split_whitespace().count(), answer.split_whitespace().count());
    let number = SERVED.fetch_add(1, Ordering::SeqCst) + 1;
    (
        200,
        format!(
            concat!(
                r#"{{"id":"chatcmpl-{}","object":"chat.completion","created":{},"model":{},"#,
                r#""choices":[{{"index":0,"message":{{"role":"assistant","content":{}}},"finish_reason":"stop"}}],"#,
                r#""usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}}}"#
            ),
            number,
            seconds(),
            quote(&given.model),
            quote(&answer),
            prompt,
            completion,
            prompt + completion
        ),
    )
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
