//! The stock Sv2 messages in their owned form, as [`Message`]s. Two of the crates below call a
//! type `SetNewPrevHash`; the template protocol's carries a `Template` prefix here.

use stratum_core::binary_sv2::{self, GetSize};
use stratum_core::common_messages_sv2 as common;
use stratum_core::extensions_sv2 as negotiation;
use stratum_core::job_declaration_sv2 as declaration;
use stratum_core::mining_sv2 as mining;
use stratum_core::template_distribution_sv2 as template;

use crate::frame::{DecodeError, EncodeError, Message, check_length};

pub use stratum_core::binary_sv2::{
    B016MOwned, B032Owned, B064KOwned, B0255Owned, Seq064KOwned, Seq0255Owned, Str0255Owned,
    Sv2OptionOwned, U256Owned,
};

fn decode_error(message_type: u8, error: &binary_sv2::Error) -> DecodeError {
    DecodeError::Malformed {
        message_type,
        // The error's text has lengths and no content.
        reason: error.to_string(),
    }
}

fn encode_error(message_type: u8, error: &binary_sv2::Error) -> EncodeError {
    EncodeError {
        message_type,
        reason: error.to_string(),
    }
}

macro_rules! stock_messages {
    ($(
        $wire:path as $name:ident = $owned:path: $extension:expr, $number:path, $channel:path;
    )*) => {$(
        #[doc = concat!("`", stringify!($name), "`, owned.")]
        pub type $name = $owned;

        impl Message for $owned {
            const EXTENSION_TYPE: u16 = $extension;
            const MESSAGE_TYPE: u8 = $number;
            const CHANNEL_MSG: bool = $channel;

            fn read(payload: &mut [u8]) -> Result<(Self, usize), DecodeError> {
                let message: $wire = binary_sv2::from_bytes(payload)
                    .map_err(|error| decode_error(Self::MESSAGE_TYPE, &error))?;
                // Every type of the encoding takes the bytes that it would be written as.
                let taken = message.get_size();
                Ok((message.into_owned(), taken))
            }

            fn write(&self) -> Result<Vec<u8>, EncodeError> {
                // Before memory is taken for it.
                check_length(Self::MESSAGE_TYPE, self.get_size())?;
                binary_sv2::to_bytes(self.clone())
                    .map_err(|error| encode_error(Self::MESSAGE_TYPE, &error))
            }
        }
    )*};
}

stock_messages! {
    common::SetupConnection as SetupConnection = common::SetupConnectionOwned: 0, common::MESSAGE_TYPE_SETUP_CONNECTION, common::CHANNEL_BIT_SETUP_CONNECTION;
    common::SetupConnectionSuccess as SetupConnectionSuccess = common::SetupConnectionSuccessOwned: 0, common::MESSAGE_TYPE_SETUP_CONNECTION_SUCCESS, common::CHANNEL_BIT_SETUP_CONNECTION_SUCCESS;
    common::SetupConnectionError as SetupConnectionError = common::SetupConnectionErrorOwned: 0, common::MESSAGE_TYPE_SETUP_CONNECTION_ERROR, common::CHANNEL_BIT_SETUP_CONNECTION_ERROR;
    common::Reconnect as Reconnect = common::ReconnectOwned: 0, common::MESSAGE_TYPE_RECONNECT, common::CHANNEL_BIT_RECONNECT;
    common::ChannelEndpointChanged as ChannelEndpointChanged = common::ChannelEndpointChangedOwned: 0, common::MESSAGE_TYPE_CHANNEL_ENDPOINT_CHANGED, common::CHANNEL_BIT_CHANNEL_ENDPOINT_CHANGED;
    negotiation::RequestExtensions as RequestExtensions = negotiation::RequestExtensionsOwned: negotiation::EXTENSION_TYPE_EXTENSIONS_NEGOTIATION, negotiation::MESSAGE_TYPE_REQUEST_EXTENSIONS, negotiation::CHANNEL_BIT_REQUEST_EXTENSIONS;
    negotiation::RequestExtensionsSuccess as RequestExtensionsSuccess = negotiation::RequestExtensionsSuccessOwned: negotiation::EXTENSION_TYPE_EXTENSIONS_NEGOTIATION, negotiation::MESSAGE_TYPE_REQUEST_EXTENSIONS_SUCCESS, negotiation::CHANNEL_BIT_REQUEST_EXTENSIONS_SUCCESS;
    negotiation::RequestExtensionsError as RequestExtensionsError = negotiation::RequestExtensionsErrorOwned: negotiation::EXTENSION_TYPE_EXTENSIONS_NEGOTIATION, negotiation::MESSAGE_TYPE_REQUEST_EXTENSIONS_ERROR, negotiation::CHANNEL_BIT_REQUEST_EXTENSIONS_ERROR;
    mining::OpenStandardMiningChannel as OpenStandardMiningChannel = mining::OpenStandardMiningChannelOwned: 0, mining::MESSAGE_TYPE_OPEN_STANDARD_MINING_CHANNEL, mining::CHANNEL_BIT_OPEN_STANDARD_MINING_CHANNEL;
    mining::OpenStandardMiningChannelSuccess as OpenStandardMiningChannelSuccess = mining::OpenStandardMiningChannelSuccessOwned: 0, mining::MESSAGE_TYPE_OPEN_STANDARD_MINING_CHANNEL_SUCCESS, mining::CHANNEL_BIT_OPEN_STANDARD_MINING_CHANNEL_SUCCESS;
    mining::OpenExtendedMiningChannel as OpenExtendedMiningChannel = mining::OpenExtendedMiningChannelOwned: 0, mining::MESSAGE_TYPE_OPEN_EXTENDED_MINING_CHANNEL, mining::CHANNEL_BIT_OPEN_EXTENDED_MINING_CHANNEL;
    mining::OpenExtendedMiningChannelSuccess as OpenExtendedMiningChannelSuccess = mining::OpenExtendedMiningChannelSuccessOwned: 0, mining::MESSAGE_TYPE_OPEN_EXTENDED_MINING_CHANNEL_SUCCESS, mining::CHANNEL_BIT_OPEN_EXTENDED_MINING_CHANNEL_SUCCESS;
    mining::OpenMiningChannelError as OpenMiningChannelError = mining::OpenMiningChannelErrorOwned: 0, mining::MESSAGE_TYPE_OPEN_MINING_CHANNEL_ERROR, mining::CHANNEL_BIT_OPEN_MINING_CHANNEL_ERROR;
    mining::NewMiningJob as NewMiningJob = mining::NewMiningJobOwned: 0, mining::MESSAGE_TYPE_NEW_MINING_JOB, mining::CHANNEL_BIT_NEW_MINING_JOB;
    mining::NewExtendedMiningJob as NewExtendedMiningJob = mining::NewExtendedMiningJobOwned: 0, mining::MESSAGE_TYPE_NEW_EXTENDED_MINING_JOB, mining::CHANNEL_BIT_NEW_EXTENDED_MINING_JOB;
    mining::UpdateChannel as UpdateChannel = mining::UpdateChannelOwned: 0, mining::MESSAGE_TYPE_UPDATE_CHANNEL, mining::CHANNEL_BIT_UPDATE_CHANNEL;
    mining::UpdateChannelError as UpdateChannelError = mining::UpdateChannelErrorOwned: 0, mining::MESSAGE_TYPE_UPDATE_CHANNEL_ERROR, mining::CHANNEL_BIT_UPDATE_CHANNEL_ERROR;
    mining::CloseChannel as CloseChannel = mining::CloseChannelOwned: 0, mining::MESSAGE_TYPE_CLOSE_CHANNEL, mining::CHANNEL_BIT_CLOSE_CHANNEL;
    mining::SetExtranoncePrefix as SetExtranoncePrefix = mining::SetExtranoncePrefixOwned: 0, mining::MESSAGE_TYPE_SET_EXTRANONCE_PREFIX, mining::CHANNEL_BIT_SET_EXTRANONCE_PREFIX;
    mining::SubmitSharesStandard as SubmitSharesStandard = mining::SubmitSharesStandardOwned: 0, mining::MESSAGE_TYPE_SUBMIT_SHARES_STANDARD, mining::CHANNEL_BIT_SUBMIT_SHARES_STANDARD;
    mining::SubmitSharesExtended as SubmitSharesExtended = mining::SubmitSharesExtendedOwned: 0, mining::MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED, mining::CHANNEL_BIT_SUBMIT_SHARES_EXTENDED;
    mining::SubmitSharesSuccess as SubmitSharesSuccess = mining::SubmitSharesSuccessOwned: 0, mining::MESSAGE_TYPE_SUBMIT_SHARES_SUCCESS, mining::CHANNEL_BIT_SUBMIT_SHARES_SUCCESS;
    mining::SubmitSharesError as SubmitSharesError = mining::SubmitSharesErrorOwned: 0, mining::MESSAGE_TYPE_SUBMIT_SHARES_ERROR, mining::CHANNEL_BIT_SUBMIT_SHARES_ERROR;
    mining::SetTarget as SetTarget = mining::SetTargetOwned: 0, mining::MESSAGE_TYPE_SET_TARGET, mining::CHANNEL_BIT_SET_TARGET;
    mining::SetCustomMiningJob as SetCustomMiningJob = mining::SetCustomMiningJobOwned: 0, mining::MESSAGE_TYPE_SET_CUSTOM_MINING_JOB, mining::CHANNEL_BIT_SET_CUSTOM_MINING_JOB;
    mining::SetCustomMiningJobSuccess as SetCustomMiningJobSuccess = mining::SetCustomMiningJobSuccessOwned: 0, mining::MESSAGE_TYPE_SET_CUSTOM_MINING_JOB_SUCCESS, mining::CHANNEL_BIT_SET_CUSTOM_MINING_JOB_SUCCESS;
    mining::SetCustomMiningJobError as SetCustomMiningJobError = mining::SetCustomMiningJobErrorOwned: 0, mining::MESSAGE_TYPE_SET_CUSTOM_MINING_JOB_ERROR, mining::CHANNEL_BIT_SET_CUSTOM_MINING_JOB_ERROR;
    mining::SetGroupChannel as SetGroupChannel = mining::SetGroupChannelOwned: 0, mining::MESSAGE_TYPE_SET_GROUP_CHANNEL, mining::CHANNEL_BIT_SET_GROUP_CHANNEL;
    mining::SetNewPrevHash as SetNewPrevHash = mining::SetNewPrevHashOwned: 0, mining::MESSAGE_TYPE_MINING_SET_NEW_PREV_HASH, mining::CHANNEL_BIT_MINING_SET_NEW_PREV_HASH;
    declaration::AllocateMiningJobToken as AllocateMiningJobToken = declaration::AllocateMiningJobTokenOwned: 0, declaration::MESSAGE_TYPE_ALLOCATE_MINING_JOB_TOKEN, declaration::CHANNEL_BIT_ALLOCATE_MINING_JOB_TOKEN;
    declaration::AllocateMiningJobTokenSuccess as AllocateMiningJobTokenSuccess = declaration::AllocateMiningJobTokenSuccessOwned: 0, declaration::MESSAGE_TYPE_ALLOCATE_MINING_JOB_TOKEN_SUCCESS, declaration::CHANNEL_BIT_ALLOCATE_MINING_JOB_TOKEN_SUCCESS;
    declaration::ProvideMissingTransactions as ProvideMissingTransactions = declaration::ProvideMissingTransactionsOwned: 0, declaration::MESSAGE_TYPE_PROVIDE_MISSING_TRANSACTIONS, declaration::CHANNEL_BIT_PROVIDE_MISSING_TRANSACTIONS;
    declaration::ProvideMissingTransactionsSuccess as ProvideMissingTransactionsSuccess = declaration::ProvideMissingTransactionsSuccessOwned: 0, declaration::MESSAGE_TYPE_PROVIDE_MISSING_TRANSACTIONS_SUCCESS, declaration::CHANNEL_BIT_PROVIDE_MISSING_TRANSACTIONS_SUCCESS;
    declaration::DeclareMiningJob as DeclareMiningJob = declaration::DeclareMiningJobOwned: 0, declaration::MESSAGE_TYPE_DECLARE_MINING_JOB, declaration::CHANNEL_BIT_DECLARE_MINING_JOB;
    declaration::DeclareMiningJobSuccess as DeclareMiningJobSuccess = declaration::DeclareMiningJobSuccessOwned: 0, declaration::MESSAGE_TYPE_DECLARE_MINING_JOB_SUCCESS, declaration::CHANNEL_BIT_DECLARE_MINING_JOB_SUCCESS;
    declaration::DeclareMiningJobError as DeclareMiningJobError = declaration::DeclareMiningJobErrorOwned: 0, declaration::MESSAGE_TYPE_DECLARE_MINING_JOB_ERROR, declaration::CHANNEL_BIT_DECLARE_MINING_JOB_ERROR;
    declaration::PushSolution as PushSolution = declaration::PushSolutionOwned: 0, declaration::MESSAGE_TYPE_PUSH_SOLUTION, declaration::CHANNEL_BIT_PUSH_SOLUTION;
    template::CoinbaseOutputConstraints as CoinbaseOutputConstraints = template::CoinbaseOutputConstraintsOwned: 0, template::MESSAGE_TYPE_COINBASE_OUTPUT_CONSTRAINTS, template::CHANNEL_BIT_COINBASE_OUTPUT_CONSTRAINTS;
    template::NewTemplate as NewTemplate = template::NewTemplateOwned: 0, template::MESSAGE_TYPE_NEW_TEMPLATE, template::CHANNEL_BIT_NEW_TEMPLATE;
    template::RequestTransactionData as RequestTransactionData = template::RequestTransactionDataOwned: 0, template::MESSAGE_TYPE_REQUEST_TRANSACTION_DATA, template::CHANNEL_BIT_REQUEST_TRANSACTION_DATA;
    template::RequestTransactionDataSuccess as RequestTransactionDataSuccess = template::RequestTransactionDataSuccessOwned: 0, template::MESSAGE_TYPE_REQUEST_TRANSACTION_DATA_SUCCESS, template::CHANNEL_BIT_REQUEST_TRANSACTION_DATA_SUCCESS;
    template::RequestTransactionDataError as RequestTransactionDataError = template::RequestTransactionDataErrorOwned: 0, template::MESSAGE_TYPE_REQUEST_TRANSACTION_DATA_ERROR, template::CHANNEL_BIT_REQUEST_TRANSACTION_DATA_ERROR;
    template::SubmitSolution as SubmitSolution = template::SubmitSolutionOwned: 0, template::MESSAGE_TYPE_SUBMIT_SOLUTION, template::CHANNEL_BIT_SUBMIT_SOLUTION;
    template::SetNewPrevHash as TemplateSetNewPrevHash = template::SetNewPrevHashOwned: 0, template::MESSAGE_TYPE_SET_NEW_PREV_HASH, template::CHANNEL_BIT_SET_NEW_PREV_HASH;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type, whether it is for a channel, and extension, of a message.
    type Numbers = (u8, bool, u16);

    /// The table of the specification's section 8, and of extension 0x0001.
    fn listed() -> Vec<(u8, bool, u16, Numbers)> {
        fn of<M: Message>() -> Numbers {
            (M::MESSAGE_TYPE, M::CHANNEL_MSG, M::EXTENSION_TYPE)
        }
        vec![
            (0x00, false, 0, of::<SetupConnection>()),
            (0x01, false, 0, of::<SetupConnectionSuccess>()),
            (0x02, false, 0, of::<SetupConnectionError>()),
            (0x03, true, 0, of::<ChannelEndpointChanged>()),
            (0x04, false, 0, of::<Reconnect>()),
            (0x10, false, 0, of::<OpenStandardMiningChannel>()),
            (0x11, false, 0, of::<OpenStandardMiningChannelSuccess>()),
            (0x12, false, 0, of::<OpenMiningChannelError>()),
            (0x13, false, 0, of::<OpenExtendedMiningChannel>()),
            (0x14, false, 0, of::<OpenExtendedMiningChannelSuccess>()),
            (0x15, true, 0, of::<NewMiningJob>()),
            (0x16, true, 0, of::<UpdateChannel>()),
            (0x17, true, 0, of::<UpdateChannelError>()),
            (0x18, true, 0, of::<CloseChannel>()),
            (0x19, true, 0, of::<SetExtranoncePrefix>()),
            (0x1a, true, 0, of::<SubmitSharesStandard>()),
            (0x1b, true, 0, of::<SubmitSharesExtended>()),
            (0x1c, true, 0, of::<SubmitSharesSuccess>()),
            (0x1d, true, 0, of::<SubmitSharesError>()),
            (0x1f, true, 0, of::<NewExtendedMiningJob>()),
            (0x20, true, 0, of::<SetNewPrevHash>()),
            (0x21, true, 0, of::<SetTarget>()),
            (0x22, true, 0, of::<SetCustomMiningJob>()),
            (0x23, true, 0, of::<SetCustomMiningJobSuccess>()),
            (0x24, true, 0, of::<SetCustomMiningJobError>()),
            (0x25, false, 0, of::<SetGroupChannel>()),
            (0x50, false, 0, of::<AllocateMiningJobToken>()),
            (0x51, false, 0, of::<AllocateMiningJobTokenSuccess>()),
            (0x55, false, 0, of::<ProvideMissingTransactions>()),
            (0x56, false, 0, of::<ProvideMissingTransactionsSuccess>()),
            (0x57, false, 0, of::<DeclareMiningJob>()),
            (0x58, false, 0, of::<DeclareMiningJobSuccess>()),
            (0x59, false, 0, of::<DeclareMiningJobError>()),
            (0x60, false, 0, of::<PushSolution>()),
            (0x70, false, 0, of::<CoinbaseOutputConstraints>()),
            (0x71, false, 0, of::<NewTemplate>()),
            (0x72, false, 0, of::<TemplateSetNewPrevHash>()),
            (0x73, false, 0, of::<RequestTransactionData>()),
            (0x74, false, 0, of::<RequestTransactionDataSuccess>()),
            (0x75, false, 0, of::<RequestTransactionDataError>()),
            (0x76, false, 0, of::<SubmitSolution>()),
            (0x00, false, 1, of::<RequestExtensions>()),
            (0x01, false, 1, of::<RequestExtensionsSuccess>()),
            (0x02, false, 1, of::<RequestExtensionsError>()),
        ]
    }

    #[test]
    fn every_message_has_the_number_and_the_channel_bit_of_the_specification() {
        for (message_type, channel_msg, extension_type, ours) in listed() {
            assert_eq!(ours, (message_type, channel_msg, extension_type));
        }
    }

    #[test]
    fn of_a_bool_only_the_lowest_bit_counts() {
        let job = NewExtendedMiningJob {
            channel_id: 1,
            job_id: 2,
            min_ntime: Sv2OptionOwned::new(None),
            version: 3,
            version_rolling_allowed: true,
            merkle_path: Seq0255Owned::new(Vec::new()).unwrap(),
            coinbase_tx_prefix: B064KOwned::new(Vec::new()).unwrap(),
            coinbase_tx_suffix: B064KOwned::new(Vec::new()).unwrap(),
        };
        let bytes = job.write().unwrap();
        // Behind two ids, an absent time and the version.
        let at = 4 + 4 + 1 + 4;
        for (byte, expected) in [(0x01, true), (0xff, true), (0x00, false), (0xfe, false)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            let (read, taken) = NewExtendedMiningJob::read(&mut bytes).unwrap();
            assert_eq!(read.version_rolling_allowed, expected, "{byte:#x}");
            assert_eq!(taken, bytes.len());
        }
    }
}
