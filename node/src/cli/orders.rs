//! `tributary peaq orders`: orders of buyers with peaq's SDK.

use clap::Subcommand;

use super::{CliError, Context, Table, reach::block_on, show};
use crate::control::api::{DecideOrder, ListOrders, OrderInfo};

/// `tributary peaq orders`
#[derive(Debug, Subcommand)]
pub enum OrdersCommand {
    /// List orders, newest first
    Ls {
        /// Only those that wait for a decision
        #[arg(long)]
        waiting: bool,
    },
    /// Accept what an order waits for: the order itself, or its payment. Look first whether the payment really came
    Confirm {
        /// The order's id, or at least 6 digits of it
        order: String,
    },
    /// End an order; one that was paid has failed, and the money is for you to give back
    Reject {
        /// The order's id, or at least 6 digits of it
        order: String,
        /// What the buyer is told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

pub(super) fn run(command: &OrdersCommand, context: &Context) -> Result<(), CliError> {
    match command {
        OrdersCommand::Ls { waiting } => list(*waiting, context),
        OrdersCommand::Confirm { order } => decide("/v1/peaq/orders/confirm", order, None, context),
        OrdersCommand::Reject { order, reason } => decide("/v1/peaq/orders/reject", order, reason.clone(), context),
    }
}

fn list(waiting: bool, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let orders: Vec<OrderInfo> =
        block_on(async { Ok(client.post("/v1/peaq/orders/list", &ListOrders { waiting }).await?) })?;
    context.output.document(&orders, |out| {
        if orders.is_empty() {
            return writeln!(out, "Nothing.");
        }
        let mut table = Table::new();
        table.row(["ORDER", "BUYER", "FOR", "PRICE", "PAYMENT", "STATE", "WHEN"]);
        for order in &orders {
            let buyer = if order.buyer_proven { order.buyer.clone() } else { format!("{} (unproven)", order.buyer) };
            table.row([
                order.id.clone(),
                buyer,
                goods(order),
                price(order),
                payment(order),
                state(order),
                show::time(order.created_ms),
            ]);
        }
        table.write(out)
    })
}

fn goods(order: &OrderInfo) -> String {
    match order.chunks {
        Some(chunks) => format!("{} of {}", show::some(chunks.into(), "chunk"), order.what),
        None => order.what.clone(),
    }
}

fn price(order: &OrderInfo) -> String {
    let Some(price) = &order.price else { return "nothing".to_owned() };
    format!("{} {} on {}", price.amount, price.token, price.chain)
}

fn payment(order: &OrderInfo) -> String {
    match (&order.payment, &order.payment_used_for) {
        (None, _) => String::new(),
        (Some(payment), Some(other)) => format!("{payment} (used for {other})"),
        (Some(payment), None) => payment.clone(),
    }
}

fn state(order: &OrderInfo) -> String {
    use crate::peaq::orchestration::purchase::Status;
    let state = match order.status {
        Status::DeliveryReserving => "waits for you",
        Status::DeliveryReserved => "not paid",
        Status::PaymentPending if order.waits_for.is_some() => "payment waits for you",
        Status::PaymentPending => "not paid",
        Status::PaymentVerified => "paid",
        Status::DeliveryReleased => "paid, handed over",
        Status::Active => "being fetched",
        Status::Completed => "received",
        Status::Cancelled => "cancelled",
        Status::Failed => "paid, failed",
    };
    order.reason.as_ref().map_or_else(|| state.to_owned(), |reason| format!("{state}: {reason}"))
}

fn decide(route: &str, order: &str, reason: Option<String>, context: &Context) -> Result<(), CliError> {
    let client = context.node()?;
    let body = DecideOrder { order: order.to_owned(), reason };
    let order: OrderInfo = block_on(async { Ok(client.post(route, &body).await?) })?;
    context.output.document(&order, |out| writeln!(out, "Order {} of {}: {}.", order.id, order.buyer, state(&order)))
}
