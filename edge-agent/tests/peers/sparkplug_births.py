"""What an edge node is born with, decoded by Google's protobuf with the classes that pysparkplug has from the specification's own .proto. Its
own face knows neither DataSets nor Templates: it raises NotImplementedError for the whole birth. Asks for a rebirth, writes
a member of an instance, and prints, as JSON, the newest message of every topic."""
import json, sys, time
import paho.mqtt.client as mqtt
from google.protobuf.json_format import MessageToDict
from pysparkplug._protobuf import Payload

heard, births = {}, []

def note(_client, _userdata, message):
    kind = message.topic.split("/")[2]
    if kind in ("NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        heard[message.topic] = MessageToDict(Payload.FromString(message.payload), preserving_proto_field_name=True)
        births.extend([message.topic] if kind == "DBIRTH" else [])

host = mqtt.Client(client_id="births", protocol=mqtt.MQTTv311)
host.on_message = note
host.connect("127.0.0.1", int(sys.argv[1]))
host.subscribe("spBv1.0/plant/#", 1)
host.loop_start()

def command(topic, fill):
    payload = Payload(timestamp=int(time.time() * 1000))
    fill(payload.metrics.add(timestamp=payload.timestamp))
    host.publish(topic, payload.SerializeToString(), 0).wait_for_publish()

def rebirth(metric):
    metric.name, metric.datatype, metric.boolean_value = "Node Control/Rebirth", 11, True

end = time.time() + 30
while time.time() < end and len(set(births)) < 3:
    command("spBv1.0/plant/NCMD/gw", rebirth)
    time.sleep(0.5)

def speed(metric):
    instance = metric.template_value
    metric.name, instance.template_ref, instance.is_definition = "m1", "p", False
    instance.metrics.add(name="speed", datatype=8, long_value=321)

command("spBv1.0/plant/DCMD/gw/m1", speed)
print(json.dumps(heard))
host.disconnect()
