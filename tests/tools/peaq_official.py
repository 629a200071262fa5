#!/usr/bin/env python3
"""peaq's own CLI and SDK, for tests: one process that answers many questions, because starting it takes seconds.

Needs the environment that tests/run.sh makes. Reads one JSON object a line and answers each with one:

    {"cli": [ARGUMENT, ...]}    runs `peaqos ARGUMENT...` in this process    -> {"code", "stdout", "stderr"}
    {"judge": {...}}            holds a directory against the SDK            -> {"failures": [TEXT, ...]}

A judgement asks: is every JSON file, byte for byte, what the CLI writes for the same content? Does the SDK verify the chain? Does
every private key given open every chunk, to the expected bytes? Are access files cut where the SDK cuts them?

    dir        published directory                  expected     file with the plaintext
    keys       private keys (hex) by role           signer       Ed25519 public key (hex)
    machine    machineDid                           chunk_size   bytes
    access     directory of access files, or null   max_size     limit they were cut by
    buyer      buyer id                             buyer_key    private key (hex)
"""

import contextlib
import hashlib
import io
import json
import sys
import traceback
from pathlib import Path

from peaq_os_cli.commands.stream.reader import read_buyer_access, read_chunk_chain, read_encrypted_data
from peaq_os_cli.commands.stream.wire import buyer_access_file_to_wire, chunk_to_wire, wire_to_json
from peaq_os_cli.main import cli
from peaq_os_sdk.stream import decrypt_chunk, verify_chunk_chain
from peaq_os_sdk.stream.buyer_access import _buyer_access_file_byte_length
from peaq_os_sdk.stream.types.buyer_access import BuyerAccessEntry, BuyerAccessFile
from peaq_os_sdk.stream.types.chunk import ChunkChain, KeyRecipient


def run_cli(arguments):
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            cli.main(args=arguments, prog_name="peaqos")
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return {"code": code, "stdout": stdout.getvalue(), "stderr": stderr.getvalue()}


def sha256(data):
    return "0x" + hashlib.sha256(data).hexdigest()


def judge_manifest(ask, directory, chunks, expected):
    text = (directory / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    yield json.dumps(manifest, indent=2) + "\n" == text, "manifest.json is not laid out as the CLI does"
    known = ["schemaVersion", "sourceHash", "totalChunks", "chunkSize", "machineDid", "createdAt"]
    yield list(manifest)[:6] == known, f"keys of the manifest: {list(manifest)}"
    wanted = ("peaq.stream.chunks.v1", sha256(expected), len(chunks), ask["chunk_size"], ask["machine"])
    found = tuple(manifest[key] for key in known[:5])
    yield found == wanted, f"manifest: {found}, not {wanted}"


def judge_chunks(ask, directory, chunks, data, expected):
    names = {f"chunk-{index}.{end}" for index in range(len(chunks)) for end in ("json", "bin")} | {"manifest.json"}
    found = {path.name for path in directory.iterdir()}
    yield found == names, f"files: {sorted(found ^ names)[:5]}"
    for chunk in chunks:
        text = (directory / f"chunk-{chunk.index}.json").read_text(encoding="utf-8")
        yield wire_to_json(chunk_to_wire(chunk), pretty=True) == text, f"chunk-{chunk.index}.json is laid out otherwise"
        roles = [recipient.recipient_type for recipient in chunk.encryption.key_recipients]
        yield roles == ["owner", "operator", "machine"], f"chunk {chunk.index}: recipients {roles}"
        signature = chunk.signature
        names = (signature.public_key_hex, signature.machine_did)
        yield names == (ask["signer"], ask["machine"]), f"chunk {chunk.index}: signed by {names}"
    verdict = verify_chunk_chain(ChunkChain("", tuple(chunks), ask["machine"], 0), data)
    yield verdict.valid, f"the SDK's verdict: {verdict}"
    for role, key in ask["keys"].items():
        parts = []
        for chunk in chunks:
            entry = next(r for r in chunk.encryption.key_recipients if r.recipient_type == role)
            parts.append(
                decrypt_chunk(
                    chunk=chunk,
                    recipient_private_key_hex=key,
                    recipient_entry=entry,
                    encrypted_data=data[chunk.index],
                )
            )
        yield b"".join(parts) == expected, f"what the {role} decrypts is something else"


def judge_access(ask, chunks, data, expected):
    directory = Path(ask["access"])
    by_chunk = read_buyer_access(directory, ask["buyer"])
    parts = [
        decrypt_chunk(
            chunk=chunk,
            recipient_private_key_hex=ask["buyer_key"],
            recipient_entry=by_chunk[chunk.chunk_id],
            encrypted_data=data[chunk.index],
        )
        for chunk in chunks
    ]
    yield b"".join(parts) == expected, "what the buyer decrypts is something else"
    count = len(list(directory.iterdir()))
    raws = []
    order = []
    for number in range(1, count + 1):
        [path] = directory.glob(f"*-{number}.json")
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
        entries = tuple(
            BuyerAccessEntry(
                chunk_id=entry["chunkId"],
                buyer=KeyRecipient(*(entry["buyer"][key] for key in entry["buyer"])),
            )
            for entry in raw["entries"]
        )
        key = raw["buyerPublicKeyHex"]
        yield path.name == f"{key}-{number}.json", f"name {path.name}"
        file = BuyerAccessFile(
            schema_version=raw["schemaVersion"], file_name=path.name, buyer_public_key_hex=key, entries=entries
        )
        yield wire_to_json(buyer_access_file_to_wire(file)) == text, f"{path.name} is laid out otherwise"
        raws.append((key, entries))
        order += [entry.chunk_id for entry in entries]
    yield order == [chunk.chunk_id for chunk in chunks], "entries are not in the order of the chain"
    for number, (key, entries) in enumerate(raws, 1):
        size = _buyer_access_file_byte_length(key, number, entries)
        yield len(entries) == 1 or size <= ask["max_size"], f"file {number} has {size} bytes"
        if number < len(raws):
            size = _buyer_access_file_byte_length(key, number, (*entries, raws[number][1][0]))
            yield size > ask["max_size"], f"file {number} had room for the next entry"


def judge(ask):
    directory, expected = Path(ask["dir"]), Path(ask["expected"]).read_bytes()
    chunks, data = read_chunk_chain(directory), read_encrypted_data(directory)
    checks = [*judge_manifest(ask, directory, chunks, expected), *judge_chunks(ask, directory, chunks, data, expected)]
    if ask.get("access"):
        checks += judge_access(ask, chunks, data, expected)
    return {"failures": [text for right, text in checks if not right]}


def main():
    answers = sys.stdout
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = run_cli(question["cli"]) if "cli" in question else judge(question["judge"])
        except Exception:
            answer = {"failures": [traceback.format_exc()]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
