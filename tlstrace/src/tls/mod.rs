//! Pure decoders of TLS records, handshake messages, extensions and certificates.
