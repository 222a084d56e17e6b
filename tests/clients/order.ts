// An order as a TypeScript program writes it: compiled with the generated types, never run.
import type { components, operations, webhooks } from "./registrar";

type Order = components["schemas"]["OrderIn"];

export const order: Order = {
  customer_id: "019b2f60-5a00-7000-8000-000000000002",
  reference: "PO-4711",
  devices: [{ serial_number: "SYN0001", manufacturer: "Contoso", model: "Contoso Book 14" }],
};

type Answers = operations["createOrder"]["responses"];
type Result =
  | Answers[200]["content"]["application/json"]
  | Answers[201]["content"]["application/json"];

export function referenceOf(result: Result): string | null {
  return result.result === "accepted" ? result.reference : null;
}

type Accepted = webhooks["order.accepted"]["post"]["requestBody"]["content"]["application/json"];

export function orderOf(event: Accepted): string {
  const type: "order.accepted" = event.type;
  return `${type} ${event.data.order_id}`;
}
