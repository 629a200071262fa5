#!/usr/bin/env python3
"""peaq's official SDK as a client of the orchestration API of a node, for the tests.

    peaq_orchestration.py URL API_KEY PAIRING_TOKEN

Reads commands from standard input, one JSON object per line with the command's name in "do", and answers each with one line:
{"ok": true, "value": …} or {"ok": false, "error": {…}}. Needs a Python with peaq-os-sdk[p2p] and websockets in it.
"""

import dataclasses
import json
import os
import sys
import threading
import time

# Libraries print as they like; answers have a line of their own.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from peaq_p2p import published  # noqa: E402
from peaq_os_sdk.client import PeaqosClient  # noqa: E402
from peaq_os_sdk.orchestration import control_socket, purchases, stream_delivery_setup, stream_listings  # noqa: E402
from peaq_os_sdk.orchestration.errors import StreamDeliveryNotReadyError  # noqa: E402
from peaq_os_sdk.orchestration.transport import AuthPlatform, api_request  # noqa: E402
from peaq_os_sdk.orchestration._internal.helpers import to_transport_config  # noqa: E402
from peaq_os_sdk.orchestration.types.purchases import (  # noqa: E402
    BuyerPublicKey,
    PaymentIntentPayer,
    PurchaseBuyerInput,
    PurchaseDeliveryRequirements,
    PurchaseEventActor,
    PurchaseResource,
    PurchaseResourceSelection,
    TransferPaymentIntentRail,
    TransferRailDestination,
)
from peaq_os_sdk.orchestration.types.stream_purchase import StreamListingPurchaseFields, StreamListingResource  # noqa: E402
from peaq_os_sdk.stream.buyer_access import build_buyer_access_files  # noqa: E402
from peaq_os_sdk.stream.p2p_delivery_channel import P2PDeliveryChannel, ResolvedChunk  # noqa: E402
from peaq_os_sdk.stream.p2p_delivery_receiver import P2PDeliveryReceiver  # noqa: E402
from peaq_os_sdk.stream.types.delivery import DistributePackage  # noqa: E402

# How long a state is waited for.
PATIENCE = 80

URL, API_KEY, TOKEN = sys.argv[1:4]
CLIENT = PeaqosClient(
    rpc_url="http://127.0.0.1:1", private_key="0x" + "11" * 32, orchestration_url=URL, api_key=API_KEY or None
)


def plain(value):
    if dataclasses.is_dataclass(value):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def get(path):
    """The SDK has no function for listings, so its transport asks."""
    return api_request(to_transport_config(CLIENT), CLIENT.session, "GET", path, "raw", auth=AuthPlatform())


def listings():
    return get("/stream/listings")["items"]


def listing(id):
    return get(f"/stream/listings/{id}")["item"]


def rails():
    return stream_delivery_setup.list_payment_rails(CLIENT)


def transports():
    return stream_delivery_setup.list_delivery_transports(CLIENT)


def create(listing, buyer, key, selection=None, modes=("p2p",)):
    selection = PurchaseResourceSelection(**selection) if selection else None
    return purchases.create_purchase(
        CLIENT,
        resource=PurchaseResource(type="stream.listing", listing_id=listing, selection=selection),
        buyer=PurchaseBuyerInput(id=buyer, public_key=BuyerPublicKey(type="x25519", public_key_hex=key)),
        delivery=PurchaseDeliveryRequirements(acceptable_modes=tuple(modes), preferred_transports=("peaqos-p2p",)),
        pairing_token=TOKEN,
    )


def show(purchase):
    return purchases.get_purchase(CLIENT, purchase)


def intent(purchase, pay_to):
    return purchases.create_purchase_payment_intent(
        CLIENT,
        purchase,
        rail=TransferPaymentIntentRail(type="transfer", destination=TransferRailDestination(pay_to=pay_to)),
        payer=PaymentIntentPayer(address="0x" + "22" * 20),
        pairing_token=TOKEN,
    )


def proof(purchase, rail="transfer", **fields):
    return purchases.submit_purchase_payment_proof(CLIENT, purchase, rail=rail, pairing_token=TOKEN, **fields)


def delivery(purchase):
    return purchases.get_purchase_delivery(CLIENT, purchase, TOKEN)


def receive(purchase, buyer, key, out):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            terms = purchases.get_purchase_delivery(CLIENT, purchase, TOKEN)
            break
        except StreamDeliveryNotReadyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    receiver = P2PDeliveryReceiver(buyer_id=buyer, client=CLIENT, recipient_private_key_hex=key)
    result = receiver.receive(purchase_id=purchase, delivery=terms)
    with open(out, "wb") as file:
        file.write(result.data)
    return {"chunks": result.chunks_received}


def event(purchase, actor, kind):
    return purchases.create_purchase_event(CLIENT, purchase, actor=PurchaseEventActor(type=actor), event_type=kind)


class Seller:
    """Sells one file: hears of payments over the control socket and delivers."""

    def __init__(self, machine, agent, token, listing, path, size):
        self.heard, self.delivered, self.failed = [], [], []
        self.changed = threading.Condition()
        self.chain, self.owner, _ = published(path, size)
        refs = {str(c.index): ResolvedChunk(c, self.chain.encrypted_data[c.index]) for c in self.chain.chain.chunks}
        self.refs = tuple(refs)
        stream_listings.update_stream_listing_purchase_fields(
            CLIENT,
            machine,
            listing,
            StreamListingPurchaseFields(
                resource=StreamListingResource(type="stream.bundle", mode="bundle", supports_live=False)
            ),
        )
        self.channel = P2PDeliveryChannel(
            machine_id=machine,
            agent_id=agent,
            agent_token=token,
            client=CLIENT,
            resolve_chunk_data=refs.__getitem__,
        )
        self.channel.start()
        self.socket = control_socket.connect_control_socket(CLIENT, machine, self, agent_id=agent, agent_token=token)
        self.wait_for("heard", "control.connected")
        self.socket.send({"type": "hello"})
        self.wait_for("heard", "control.ack:hello")

    def note(self, what, value):
        with self.changed:
            getattr(self, what).append(value)
            self.changed.notify_all()

    def wait_for(self, what, value):
        with self.changed:
            if not self.changed.wait_for(lambda: value in getattr(self, what) or self.failed, PATIENCE) or self.failed:
                raise TimeoutError(f"{value} is not among {getattr(self, what)}; failed: {self.failed}")
            return list(getattr(self, what))

    def on_connected(self, message):
        self.note("heard", message.type)

    def on_ack(self, message):
        self.note("heard", f"{message.type}:{message.message_type}")

    def on_error(self, error):
        self.note("failed", repr(error))

    def on_close(self):
        self.note("heard", "closed")

    def on_notification(self, message):
        self.note("heard", message.type)
        if message.type == "purchase.payment_proof.recorded" and message.payload["payment_status"] == "verified":
            purchase = message.payload["purchase_id"]
            threading.Thread(target=self.deliver, args=(purchase,), daemon=True).start()

    def deliver(self, id):
        try:
            buyer = purchases.get_purchase(CLIENT, id).buyer
            files = build_buyer_access_files(
                chunks=self.chain.chain.chunks,
                owner_private_key_hex=bytes(self.owner).hex(),
                buyer_recipient_id=buyer.id,
                buyer_public_key_hex=buyer.public_key.public_key_hex,
            )
            self.channel.deliver(
                DistributePackage(
                    buyer_access_files=tuple(files),
                    encrypted_data_refs=self.refs,
                    buyer_id=buyer.id,
                    order_id=id,
                )
            )
            self.note("delivered", id)
        except Exception as error:
            self.note("failed", f"{error!r}: {getattr(error, 'reason', '')}: {error.__cause__!r}")


SELLERS = []


def sell(machine, agent, token, listing, path, size):
    SELLERS.append(Seller(machine, agent, token, listing, path, size))


def sold(purchase):
    SELLERS[-1].wait_for("delivered", purchase)
    return {"heard": SELLERS[-1].wait_for("heard", "purchase.delivery.completed")}


COMMANDS = {
    function.__name__: function
    for function in (
        listings,
        listing,
        rails,
        transports,
        create,
        show,
        intent,
        proof,
        delivery,
        receive,
        event,
        sell,
        sold,
    )
}


def described(error):
    fields = {name: getattr(error, name, None) for name in ("code", "status_code", "reason")}
    return {"type": type(error).__name__, "message": str(error), **{k: v for k, v in fields.items() if v is not None}}


def main():
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": True, "value": plain(COMMANDS[command.pop("do")](**command))}
        except Exception as error:
            answer = {"ok": False, "error": described(error)}
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


main()
# Threads of the SDK must not hold up the end.
os._exit(0)
