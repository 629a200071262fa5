#!/usr/bin/env python3
"""The official SDK's side of `cargo bench -p tributary-tests --bench end_to_end`.

Needs a Python with the SDK in it, which the bench is told of by an environment variable:

    python3 -m venv /some/where
    /some/where/bin/pip install 'peaq-os-sdk[p2p]==0.12.1' 'peaq-os-cli==0.1.1'
    TRIBUTARY_SDK_PYTHON=/some/where/bin/python cargo bench -p tributary-tests --bench end_to_end

Reads one command a line and answers each with one line of JSON, so that its rounds can take turns with ours:

    seal BYTES          build_chunk_chain over so many random bytes, chunks of 256 KiB
    packages COUNT      build_signed_data_package of the IMU message, three field rules
    wrap COUNT          so many chunk keys, each in a sealed box for three recipients

The answer is {"seconds": CPU time of this process}. The first line it prints says which versions these are. The argument is the
file with the IMU message.
"""

import importlib.metadata
import json
import os
import platform
import sys
import time

from eth_account import Account
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from peaq_os_sdk.stream import (
    BuildChunkChainParams,
    EncryptionContext,
    SigningContext,
    build_chunk_chain,
    build_signed_data_package,
    verify_chunk_chain,
    verify_data_package,
)
from peaq_os_sdk.stream._internal.x25519_sealedbox import wrap_chunk_key_sealed_box
from peaq_os_sdk.stream.types.data_package import UnsignedDataPayload
from peaq_os_sdk.stream.types.field_rule import FieldRule, TopicFieldRules

RULES = TopicFieldRules(
    topic="/imu",
    rules=(
        FieldRule("status.hardware_id", "anonymize", "hash"),
        FieldRule("temperature", "exclude"),
        FieldRule("orientation", "encrypt"),
    ),
    default_action="include",
)
TIMESTAMP = "2026-01-02T03:04:05.678123456Z"


def timed(work):
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


class Baseline:
    def __init__(self, imu):
        signing = SigningKey.generate()
        self.signing_private, self.signing_public = bytes(signing).hex(), bytes(signing.verify_key).hex()
        self.recipients = [bytes(PrivateKey.generate().public_key).hex() for _ in range(3)]
        account = Account.create()
        self.did = f"did:peaq:{account.address}"
        self.signer = SigningContext(account.key.to_0x_hex(), "software", self.did, "machine-signing-key-1")
        self.encryption = EncryptionContext("0x" + "07" * 32, "AES-256-GCM")
        with open(imu, encoding="utf-8") as file:
            self.imu = json.load(file)
        self.inputs = {}

    def seal(self, count):
        data = self.inputs.setdefault(count, os.urandom(count))
        owner, operator, machine = self.recipients
        params = BuildChunkChainParams(
            input=data,
            owner_public_key_hex=owner,
            operator_public_key_hex=operator,
            machine_public_key_hex=machine,
            signing_private_key_hex=self.signing_private,
            signing_public_key_hex=self.signing_public,
            machine_did=self.did,
            machine_key_id="machine-signing-key-1",
            did=self.did,
        )
        seconds, built = timed(lambda: build_chunk_chain(params))
        assert verify_chunk_chain(built.chain, built.encrypted_data).valid
        return seconds

    def package(self, number):
        return build_signed_data_package(
            unsigned_payload=UnsignedDataPayload("/imu", self.imu, TIMESTAMP),
            topic_rules=RULES,
            signing_ctx=self.signer,
            encryption_ctx=self.encryption,
            schema_version="1.0.0",
            sequence_number=number,
        )

    def packages(self, count):
        seconds, made = timed(lambda: [self.package(number) for number in range(count)])
        assert verify_data_package(made[-1]).valid
        return seconds

    def wrap(self, count):
        keys = [os.urandom(32) for _ in range(count)]
        seconds, made = timed(lambda: [wrap_chunk_key_sealed_box(key, to) for key in keys for to in self.recipients])
        assert len(made) == 3 * count
        return seconds


def main():
    baseline = Baseline(sys.argv[1])
    version = importlib.metadata.version("peaq-os-sdk")
    print(json.dumps({"sdk": version, "python": platform.python_version()}), flush=True)
    for line in sys.stdin:
        command, count = line.split()
        seconds = {"seal": baseline.seal, "packages": baseline.packages, "wrap": baseline.wrap}[command](int(count))
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
