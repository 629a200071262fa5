//! Nodes that offer peaq's orchestration API, and the official SDK as their client.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    home::{Sandbox, machine_config},
    node::NodeProcess,
    peaq::{python, quiet},
    trade,
    wait::soon,
};

/// The token that all buyers share.
pub const SHARED: &str = "shared-token-of-all-buyers";
/// The token of the buyer [`ALICE`].
pub const ALICES: &str = "token-of-alice-alone";
/// A buyer with a token of its own.
pub const ALICE: &str = "did:peaq:0x52908400098527886e0f7030069857d2e4169ee7";
/// The token of the seller with peaq's SDK.
pub const AGENTS: &str = "token-of-the-seller-agent";
/// The machine's id at peaq.
pub const MACHINE: &str = "1234";
/// Whom to pay.
pub const PAY_TO: &str = "0x9f902384bb4fa64d167af03089817ee76f8a7c6e";

/// A machine that sells the files of its stream `rec` through the orchestration API.
pub struct Market {
    /// Its folder.
    pub sandbox: Sandbox,
    /// Its home.
    pub home: PathBuf,
    /// It.
    pub node: NodeProcess,
    /// Where the API listens.
    pub port: u16,
    /// The file that was published first.
    pub input: PathBuf,
    /// Its listing.
    pub listing: String,
}

/// Writes a private file.
///
/// # Panics
///
/// When it cannot be written.
pub fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Market {
    /// Starts one that has published a file of `len` bytes. `access` is the stream's policy, `more` the rest of the section
    /// `peaq.orchestration`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn open(len: usize, access: &str, more: &str) -> Self {
        let sandbox = Sandbox::new();
        let stream = format!("  - {{ topic: rec, mode: file, access: {{ {access} }}, chunk: {{ bytes: 64KiB }} }}\n");
        let port = sandbox.port("orchestration");
        let config = format!(
            "{}peaq:\n  orchestration:\n    listen: 127.0.0.1:{port}\n    machine_id: \"{MACHINE}\"\n    token_file: shared.token\n    \
             buyers: [{{ id: \"{ALICE}\", token_file: alice.token }}]\n    agent: {{ id: agent-1, token_file: agent.token }}\n{more}",
            machine_config(sandbox.port("machine"), &[stream]),
        );
        let home = sandbox.home("machine", &config);
        for (name, token) in [("shared", SHARED), ("alice", ALICES), ("agent", AGENTS)] {
            private(&home.join(format!("{name}.token")), token);
        }
        private(&home.join("paid.txt"), "# nothing yet\n");
        let node = NodeProcess::start(&home).await;
        let input = sandbox.path().join("input");
        let bytes: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8 ^ (at / 251 % 255) as u8).collect();
        fs::write(&input, bytes).unwrap();
        let listing = format!("lst_{}", trade::publish(&node, "rec", &input).await);
        Self { sandbox, home, node, port, input, listing }
    }

    /// What costs 1.5 USDC, to be paid as `payment` says.
    #[must_use]
    pub fn priced(payment: &str) -> String {
        format!(
            "    price: {{ amount: \"1.5\", token: USDC, chain: peaq, pay_to: \"{PAY_TO}\" }}\n    payment: {payment}\n"
        )
    }

    /// Kills the node, which cannot see it coming, and starts it again.
    ///
    /// # Panics
    ///
    /// When it had ended before, or does not start.
    pub async fn crash(&mut self) {
        self.node.kill();
        self.node = NodeProcess::start(&self.home).await;
    }

    /// The SDK with this API key and pairing token.
    #[must_use]
    pub fn sdk(&self, api_key: &str, pairing_token: &str) -> Sdk {
        Sdk::start(&format!("http://127.0.0.1:{}", self.port), api_key, pairing_token, self.sandbox.path())
    }

    /// Sends bytes to the API as they are and returns the answer, status line and all. They have to ask for the end of the
    /// connection.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    pub async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        // Who is refused early hears of it before everything is written.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The official SDK as a process that does as it is told.
pub struct Sdk {
    _process: Child,
    input: ChildStdin,
    output: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Sdk {
    fn start(url: &str, api_key: &str, pairing_token: &str, home: &Path) -> Self {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/peaq_orchestration.py");
        let log = fs::File::create(home.join(format!("sdk-{}.log", rand::random::<u32>()))).unwrap();
        let mut process = Command::from(quiet(python()))
            .arg(tool)
            .args([url, api_key, pairing_token])
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { _process: process, input, output: BufReader::new(output).lines() }
    }

    /// Has it do something; `arguments` are those of the tool's function.
    ///
    /// # Errors
    ///
    /// What the SDK raises: its type, message, code and status.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn ask(&mut self, what: &str, mut arguments: Value) -> Result<Value, Value> {
        arguments["do"] = json!(what);
        self.input.write_all(format!("{arguments}\n").as_bytes()).await.unwrap();
        let line = soon(what, self.output.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the SDK ended when it was asked for {what}"));
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        if answer["ok"] == true { Ok(answer["value"].take()) } else { Err(answer["error"].take()) }
    }

    /// As [`Sdk::ask`], for what has to succeed.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn get(&mut self, what: &str, arguments: Value) -> Value {
        self.ask(what, arguments).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// As [`Sdk::ask`], for what has to be refused: the error's code.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub async fn refused(&mut self, what: &str, arguments: Value) -> String {
        match self.ask(what, arguments).await {
            Ok(value) => panic!("{what} was not refused: {value}"),
            Err(error) => error["code"].as_str().unwrap_or_else(|| panic!("{what}: {error}")).to_owned(),
        }
    }

    /// Orders a listing and returns the purchase.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn order(&mut self, listing: &str, buyer: &str) -> Value {
        self.get("create", json!({ "listing": listing, "buyer": buyer, "key": crate::delivery::buyer_public() })).await
    }
}
