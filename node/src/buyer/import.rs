//! Grants that came by hand: a file from the machine's operator, without a request.

use tributary_protocol::{access::Grant, ids::Did};

use super::{Buyer, error::AccessError, wallet::GrantInfo};

impl Buyer {
    /// Puts grants into the wallet that nobody asked for. The machine must be followed: its bindings are what proves them. Each
    /// must be for this buyer and its key; what it says of request and terms is the issuer's own.
    ///
    /// # Errors
    ///
    /// [`AccessError::Grant`] names what is wrong with the first bad one; those before it are kept.
    pub async fn import_grants(&self, did: Did, grants: Vec<Grant>) -> Result<Vec<GrantInfo>, AccessError> {
        let mut taken = Vec::with_capacity(grants.len());
        for grant in grants {
            let header = *grant.header();
            let result = self.receive_grants(did, vec![grant], header.request_id, header.terms_hash).await?;
            taken.extend(result.map_err(|source| AccessError::Grant { did, source })?);
        }
        Ok(taken)
    }
}
