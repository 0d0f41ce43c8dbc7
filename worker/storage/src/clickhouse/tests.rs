//! The contract over ClickHouse, and random work over it and the model.

use super::testing::OverServer;

crate::contract_tests!(OverServer);
