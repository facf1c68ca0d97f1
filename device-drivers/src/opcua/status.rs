//! What to look at when a server gives a bad status. A code says whose trouble it is: ours (a name, a right), or that of what is behind
//! the server, whose nodes are all there.

use opcua::types::StatusCode;

/// What to look at; the code is that of a [`crate::value::Cause::Status`].
pub fn advice(code: u32) -> &'static str {
    use StatusCode as S;
    match StatusCode::from(code) {
        S::BadNodeIdUnknown | S::BadNodeIdInvalid | S::BadAttributeIdInvalid | S::BadIndexRangeInvalid => {
            "does the server have this node?"
        }
        S::BadUserAccessDenied | S::BadNotReadable | S::BadSecurityModeInsufficient => {
            "may the line's user read it on the server?"
        }
        S::BadSensorFailure | S::BadDeviceFailure => "the server is fine; look at the sensor or device behind it",
        S::BadNotConnected | S::BadNoCommunication | S::BadCommunicationError | S::BadServerNotConnected => {
            "the server is fine; it does not reach the device behind it"
        }
        S::BadOutOfService => "the server is fine; what it reads this from is out of service",
        S::BadWaitingForInitialData | S::BadNoData | S::BadNoDataAvailable => {
            "the server is fine; it has no value of it yet"
        }
        S::BadConfigurationError | S::BadNotSupported | S::BadDataEncodingUnsupported => {
            "is the node set up rightly on the server?"
        }
        S::BadOutOfMemory | S::BadResourceUnavailable | S::BadTooManyOperations => {
            "does the server have enough to do with other clients?"
        }
        _ => "the server says so; its own log may say why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_the_server_does_not_know_is_a_question_of_names() {
        let is_of_names = |status: StatusCode| advice(status.bits()).contains("does the server have this node");
        assert!(is_of_names(StatusCode::BadNodeIdUnknown));
        for status in [
            StatusCode::BadSensorFailure,
            StatusCode::BadUserAccessDenied,
            StatusCode::BadOutOfService,
            StatusCode::Bad,
        ] {
            assert!(!is_of_names(status), "{status}");
        }
    }
}
