//! Every reason why a packet is ignored or lost: the enum is the reason, the counter and its text.
