"""A Modbus TCP client by other people, against the bank at the given port. Prints one JSON object of what it got."""

import json
import sys

from pymodbus.client import ModbusTcpClient

client = ModbusTcpClient("127.0.0.1", port=int(sys.argv[1]), timeout=10)
assert client.connect()


def words(reply):
    return reply.registers if not reply.isError() else f"exception {reply.exception_code}"


said = {
    "read": words(client.read_holding_registers(0, count=125, device_id=1)),
    "input": words(client.read_input_registers(0, count=4, device_id=2)),
    "beyond": words(client.read_holding_registers(199, count=2, device_id=1)),
    "no_unit": words(client.read_holding_registers(0, count=1, device_id=9)),
    "wrote_one": not client.write_register(10, 4711, device_id=1).isError(),
    "wrote_many": not client.write_registers(20, [1, 2, 3], device_id=1).isError(),
    "wrote_coil": not client.write_coil(5, True, device_id=1).isError(),
    "masked": not client.mask_write_register(address=20, and_mask=0xFF00, or_mask=0x0042, device_id=1).isError(),
    "exchanged": words(
        client.readwrite_registers(read_address=30, read_count=2, write_address=30, values=[8, 9], device_id=1)
    ),
}
said["one_back"] = words(client.read_holding_registers(10, count=1, device_id=1))
said["many_back"] = words(client.read_holding_registers(20, count=3, device_id=1))
said["coil_back"] = client.read_coils(5, count=1, device_id=1).bits[0]
client.close()
print(json.dumps(said))
