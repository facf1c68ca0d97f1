"""An OPC UA server by asyncua, for the client's peer test: python3 asyncua_server.py CERTIFICATE KEY SKEW

Its clock is SKEW seconds ahead, as that of many a controller that nobody has ever set.
Prints "ready PORT" once it serves, and "later" once it has added a node that was not there. It ends with its standard input.
"""

import asyncio
import datetime
import socket
import sys
import uuid


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=float(sys.argv[3]))


datetime.datetime = Clock

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole

NAMESPACE = "urn:lightsout:peer"
APPLICATION = "urn:lightsout:plc-sim"


class Users:
    """Anyone may come without a name; who gives one must know the password."""

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if isinstance(password, bytes):
            password = password.decode()
        if username is None or (username == "operator" and password == "right"):
            return User(role=UserRole.Admin)
        return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def main(certificate, key):
    port = free_port()
    server = Server(user_manager=Users())
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/peer/")
    await server.set_application_uri(APPLICATION)
    server.set_security_policy(
        [
            ua.SecurityPolicyType.NoSecurity,
            ua.SecurityPolicyType.Basic256Sha256_Sign,
            ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
            ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
            ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
        ]
    )
    await server.load_certificate(certificate)
    await server.load_private_key(key)
    index = await server.register_namespace(NAMESPACE)
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 500000, tzinfo=datetime.timezone.utc)
    values = {
        "Count": (0, ua.VariantType.Int64),
        "Double": (0.1, ua.VariantType.Double),
        "Float": (0.5, ua.VariantType.Float),
        "Byte": (7, ua.VariantType.Byte),
        "Flag": (True, ua.VariantType.Boolean),
        "Text": ("Grüße", ua.VariantType.String),
        "Label": (ua.LocalizedText("ready"), ua.VariantType.LocalizedText),
        "Moment": (moment, ua.VariantType.DateTime),
        "Guid": (uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63"), ua.VariantType.Guid),
        "Bytes": (b"\x00\xff\x7f", ua.VariantType.ByteString),
        "Words": ([1, 2, 3], ua.VariantType.UInt16),
        "Matrix": ([1.0, 2.0], ua.VariantType.Double),
        "Tick": (0, ua.VariantType.Int64),
        "Names": (["links", "rechts"], ua.VariantType.String),
        "Flags": ([True, False, True], ua.VariantType.Boolean),
        "Table": ([[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]], ua.VariantType.Double),
        "Range": (ua.Range(0.0, 1.0), ua.VariantType.ExtensionObject),
    }
    folder = await server.nodes.objects.add_object(ua.NodeId("Peer", index), ua.QualifiedName("Peer", index))

    async def add(name, value, kind):
        node = await folder.add_variable(ua.NodeId(name, index), ua.QualifiedName(name, index), value, kind)
        await node.set_writable()
        return node

    nodes = {name: await add(name, value, kind) for name, (value, kind) in values.items()}
    # A circle: the folder is also below one of its own children.
    await nodes["Count"].add_reference(folder, ua.ObjectIds.Organizes, forward=True)
    try:
        async with server:
            print("ready", port, flush=True)
            ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            count = 0
            while not ended.done():
                count += 1
                now = datetime.datetime.now(datetime.timezone.utc)
                await nodes["Count"].write_value(ua.DataValue(ua.Variant(count, ua.VariantType.Int64), SourceTimestamp=now))
                # This one has no source time.
                await nodes["Tick"].write_value(ua.DataValue(ua.Variant(count, ua.VariantType.Int64), ServerTimestamp=now))
                await asyncio.sleep(0.1)
                if count == 30:
                    await add("Later", 1, ua.VariantType.Int32)
                    print("later", flush=True)
    except asyncio.CancelledError:
        pass


asyncio.run(main(sys.argv[1], sys.argv[2]))
