#!/usr/bin/env python3
"""peaq's official seller and buyer, for the tests and the bench of delivery over libp2p.

    peaq_p2p.py receive DELIVERY KEY BUYER OUT          the SDK's P2PDeliveryReceiver
    peaq_p2p.py deliver INPUT SIZE BUYER BUYER_PUBLIC   the SDK's P2PDeliveryChannel
    peaq_p2p.py publish INPUT SIZE DIR                  a folder of chunks, as `peaqos stream publish` writes it

Needs a Python with peaq-os-sdk[p2p] in it. The marketplace is a stand-in: its answers are made here.

`receive` reads the answer of GET /purchases/<id>/delivery from the file DELIVERY and prints one line of JSON.
`deliver` prints that answer as one line, then one line about its end, and keeps its node until its standard input ends: a seller
that stops at once takes the last bytes with it.
"""

import json
import os
import sys
import time
import types

from nacl.public import PrivateKey
from nacl.signing import SigningKey
from peaq_os_sdk.orchestration import purchases, stream_delivery_setup
from peaq_os_sdk.orchestration.types.purchases import (
    PeaqosP2pConnect,
    PurchaseDeliveryDetails,
    PurchaseDeliveryResponse,
    PurchaseDeliverySignaling,
)
from peaq_os_sdk.orchestration.types.stream_purchase import P2PDeliveryTransport
from peaq_os_sdk.stream import BuildChunkChainParams, build_chunk_chain
from peaq_os_sdk.stream.buyer_access import build_buyer_access_files
from peaq_os_sdk.stream.errors import StreamReceiveError
from peaq_os_sdk.stream.p2p_delivery_channel import P2PDeliveryChannel, ResolvedChunk
from peaq_os_sdk.stream.p2p_delivery_receiver import P2PDeliveryReceiver
from peaq_os_sdk.stream.types.buyer_access import BuyerAccessEntry
from peaq_os_sdk.stream.types.chunk import KeyRecipient
from peaq_os_sdk.stream.types.delivery import DistributePackage

PROTOCOL = "/peaqos/stream/chunk/1.0.0"
ENCODING = "peaqos-json-frame-v1"
PURCHASE, SESSION = "ord-1", "sess-1"


def say(value):
    print(json.dumps(value), flush=True)


def namespace(**fields):
    return types.SimpleNamespace(**fields)


def recipient(entry):
    return KeyRecipient(
        recipient_id=entry["recipientId"],
        recipient_type=entry["recipientType"],
        algorithm=entry["algorithm"],
        public_key_hex=entry["publicKeyHex"],
        wrapped_key_hex=entry["wrappedKeyHex"],
    )


def wire_recipient(entry):
    return {
        "recipientId": entry.recipient_id,
        "recipientType": entry.recipient_type,
        "algorithm": entry.algorithm,
        "publicKeyHex": entry.public_key_hex,
        "wrappedKeyHex": entry.wrapped_key_hex,
    }


def receive(delivery, key, buyer, out):
    with open(delivery, encoding="utf-8") as file:
        answer = json.load(file)
    terms = answer["delivery"]
    response = PurchaseDeliveryResponse(
        purchase_id=answer["purchaseId"],
        delivery=PurchaseDeliveryDetails(
            status=terms["status"],
            mode=terms["mode"],
            transport_id=terms["transportId"],
            session_id=terms["sessionId"],
            signaling=PurchaseDeliverySignaling(type="peaqos-socket", channel_id="ch-1"),
            protocols=tuple(terms["protocols"]),
            encoding=terms["encoding"],
            connect=PeaqosP2pConnect(
                type=terms["connect"]["type"],
                url=terms["connect"]["url"],
                expires_at=terms["connect"]["expiresAt"],
            ),
        ),
        access=tuple(
            BuyerAccessEntry(chunk_id=entry["chunkId"], buyer=recipient(entry["buyer"])) for entry in answer["access"]
        ),
    )
    receiver = P2PDeliveryReceiver(buyer_id=buyer, client=namespace(), recipient_private_key_hex=key)
    begun = time.monotonic()
    try:
        result = receiver.receive(purchase_id=answer["purchaseId"], delivery=response)
    except StreamReceiveError as error:
        say({"ok": False, "code": error.code, "reason": error.reason})
        return
    seconds = time.monotonic() - begun
    with open(out, "wb") as file:
        file.write(result.data)
    say({"ok": True, "chunks": result.chunks_received, "seconds": seconds})


def published(path, size):
    with open(path, "rb") as file:
        data = file.read()
    owner, signing = PrivateKey.generate(), SigningKey.generate()
    public = bytes(owner.public_key).hex()
    from peaq_os_sdk.stream.types.build_chunk_chain_params import ChunkingConfig

    chain = build_chunk_chain(
        BuildChunkChainParams(
            input=data,
            owner_public_key_hex=public,
            operator_public_key_hex=public,
            machine_public_key_hex=public,
            signing_private_key_hex=bytes(signing).hex(),
            signing_public_key_hex=bytes(signing.verify_key).hex(),
            machine_did="did:peaq:7",
            machine_key_id="key-1",
            did="did:peaq:7",
            config=ChunkingConfig(chunk_size=int(size)),
        )
    )
    return chain, owner, bytes(signing.verify_key).hex()


def publish(path, size, folder):
    from peaq_os_sdk.stream._internal.frames import _chunk_to_camel

    chain, owner, signer = published(path, size)
    os.makedirs(folder)
    for chunk in chain.chain.chunks:
        with open(os.path.join(folder, f"chunk-{chunk.index}.json"), "w", encoding="ascii") as file:
            json.dump(_chunk_to_camel(chunk), file, indent=2)
            file.write("\n")
        with open(os.path.join(folder, f"chunk-{chunk.index}.bin"), "wb") as file:
            file.write(chain.encrypted_data[chunk.index])
    say({"ownerPrivateHex": bytes(owner).hex(), "signer": signer, "chunks": len(chain.chain.chunks)})


def deliver(path, size, buyer, buyer_public):
    chain, owner, signer = published(path, size)
    chunks = chain.chain.chunks
    files = build_buyer_access_files(
        chunks=chunks,
        owner_private_key_hex=bytes(owner).hex(),
        buyer_recipient_id=buyer,
        buyer_public_key_hex=buyer_public,
    )
    by_ref = {str(chunk.index): ResolvedChunk(chunk, chain.encrypted_data[chunk.index]) for chunk in chunks}
    descriptor = P2PDeliveryTransport(
        mode="p2p",
        transport_id="peaqos-p2p",
        version="v1",
        features=("chunks",),
        signaling="peaqos-socket",
        protocols=(PROTOCOL,),
        encoding=ENCODING,
        handoff="prepare-access",
        connect_schema={"type": "object", "properties": {"type": "peaqos-p2p-url"}},
    )

    def prepared(_client, purchase_id, *, request, **_credentials):
        connect = request.delivery.connect
        terms = namespace(
            mode="p2p", transport_id="peaqos-p2p", encoding=ENCODING, protocols=(PROTOCOL,), connect=connect
        )
        say(
            {
                "purchaseId": purchase_id,
                "delivery": {
                    "status": "ready",
                    "mode": "p2p",
                    "transportId": "peaqos-p2p",
                    "sessionId": SESSION,
                    "protocols": [PROTOCOL],
                    "encoding": ENCODING,
                    "connect": {"type": connect.type, "url": connect.url, "expiresAt": connect.expires_at},
                },
                "access": [
                    {"schemaVersion": item.schema_version, "chunkId": item.chunk_id, "buyer": wire_recipient(item.buyer)}
                    for item in request.items
                ],
                "signer": signer,
            }
        )
        ids = tuple(item.chunk_id for item in request.items)
        return namespace(
            item=namespace(delivery_session_id=SESSION, buyer_id=buyer, chunk_ids=ids),
            access=request.items,
            delivery_session=namespace(delivery=terms),
        )

    stream_delivery_setup.list_delivery_transports = lambda _client: [descriptor]
    stream_delivery_setup.put_delivery_capabilities = lambda *_args, **_named: namespace(expires_at=None)
    purchases.prepare_buyer_access = prepared
    purchases.create_purchase_event = lambda *_args, **_named: None
    channel = P2PDeliveryChannel(
        machine_id="m", agent_id="a", agent_token="t", client=namespace(), resolve_chunk_data=by_ref.__getitem__
    )
    channel.start()
    begun = time.monotonic()
    try:
        channel.deliver(
            DistributePackage(
                buyer_access_files=tuple(files), encrypted_data_refs=tuple(by_ref), buyer_id=buyer, order_id=PURCHASE
            )
        )
        say({"ok": True, "seconds": time.monotonic() - begun})
    except Exception as error:
        say({"ok": False, "reason": getattr(error, "reason", type(error).__name__)})
    sys.stdin.read()
    channel.stop()


if __name__ == "__main__":
    {"receive": receive, "deliver": deliver, "publish": publish}[sys.argv[1]](*sys.argv[2:])
