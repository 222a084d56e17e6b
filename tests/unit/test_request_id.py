"""MS-RequestId: one call, one id."""

from uuid import UUID, uuid4

from app.domain import request_id
from app.domain.batch import OutgoingDevice
from app.platforms.base import Submission

CUSTOMER = UUID(int=7)
DEVICES = [OutgoingDevice("S1", "Contoso", "Book"), OutgoingDevice(product_key="0123456789012")]
CALL = Submission(CUSTOMER, "Sales", True, DEVICES)
OTHERS = [
    Submission(CUSTOMER, "Sales", False, DEVICES),
    Submission(CUSTOMER, "sales", True, DEVICES),
    Submission(UUID(int=8), "Sales", True, DEVICES),
    Submission(CUSTOMER, "Sales", True, DEVICES[:1]),
    Submission(CUSTOMER, "Sales", True, DEVICES[::-1]),
    Submission(CUSTOMER, "Sales", True, [DEVICES[0], OutgoingDevice(serial_number="0123456789012")]),
]


def test_an_id_belongs_to_its_very_call_and_to_no_other() -> None:
    made = request_id.new(CALL.fingerprint(), uuid4())
    again = Submission(CUSTOMER, "Sales", True, list(DEVICES))
    assert request_id.belongs_to(made, again.fingerprint())
    assert not [other for other in OTHERS if request_id.belongs_to(made, other.fingerprint())]


def test_a_call_that_is_made_anew_gets_another_id_of_the_usual_form() -> None:
    first, second = (request_id.new(CALL.fingerprint(), uuid4()) for _ in range(2))
    assert first != second
    assert {(one.version, one.variant) for one in (first, second)} == {(4, "specified in RFC 4122")}
