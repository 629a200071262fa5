//! The network between real nodes over real sockets on the loopback interface.

mod net_suite {
    mod gossip;
    mod pull;
    mod requests;
    mod support;
}
