"""Bodies that Schemathesis can't make of a schema: bytes go as they are."""

import schemathesis


@schemathesis.serializer("application/x-protobuf")
def protobuf(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
