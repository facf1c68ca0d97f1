"""An OPC UA client by other people, against the bank at the given endpoint: reads, browses, subscribes. Prints one JSON object."""

import asyncio
import json
import sys

from asyncua import Client


class Changes:
    def __init__(self):
        self.values = []

    def datachange_notification(self, _node, value, _data):
        self.values.append(value)


async def main():
    async with Client(sys.argv[1], timeout=60) as client:
        index = await client.get_namespace_index("urn:lightsout:plc-sim:bank")
        nodes = [client.get_node(f"ns={index};s=V.{n}") for n in range(3)]
        values = [await node.read_value() for node in nodes]
        changes = Changes()
        subscription = await client.create_subscription(100, changes)
        await subscription.subscribe_data_change(nodes[0])
        for _ in range(200):
            if len(set(changes.values)) >= 3:
                break
            await asyncio.sleep(0.1)
        missing = client.get_node(f"ns={index};s=No.Such")
        try:
            await missing.read_value()
            missing_is = "there"
        except Exception as e:
            missing_is = type(e).__name__
        print(json.dumps({"values": values, "changes": len(set(changes.values)), "missing": missing_is}))


asyncio.run(main())
