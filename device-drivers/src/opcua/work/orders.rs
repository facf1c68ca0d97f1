//! What is written: command blocks, and what people ask for.

use super::{Done, WISHES_MAX, Work};
use crate::driver::{BlockWrite, LinkError, TagWrite};
use crate::line::LineSink;
use crate::opcua::block_value;
use crate::opcua::write::write_tags;
use crate::value::{Cause, PointId};
use opcua::types::{AttributeId, DataValue, NodeId, NumericRange, StatusCode, WriteValue};
use tokio::sync::mpsc;

impl<S: LineSink> Work<'_, S> {
    pub(super) fn write_blocks(&mut self) {
        let mut blocks = Vec::new();
        self.sink.due_writes(&mut blocks);
        let values = self.block_values(&mut blocks);
        if values.is_empty() {
            return;
        }
        self.writing_blocks = true;
        let link = self.link();
        self.jobs.spawn(async move { Done::Blocks { result: link.write(&values).await, blocks } });
    }

    /// What to write for the blocks; blocks whose node is not there are given back to the sink and taken out.
    pub(super) fn block_values(&mut self, blocks: &mut Vec<BlockWrite>) -> Vec<WriteValue> {
        let mut values = Vec::with_capacity(blocks.len());
        let mut homeless = Vec::new();
        blocks.retain(|block| {
            let node = self.live.commands.iter().find(|(m, _)| *m == block.machine).and_then(|(_, node)| node.clone());
            match node {
                Some(node) => values.push(write_value(node, block)),
                None => homeless.push(*block),
            }
            !homeless.ends_with(std::slice::from_ref(block))
        });
        if !homeless.is_empty() {
            self.sink.not_written(&homeless, Cause::Status(StatusCode::BadNodeIdUnknown.bits()));
        }
        values
    }

    pub(super) fn blocks_written(
        &mut self,
        blocks: &[BlockWrite],
        result: Result<Vec<StatusCode>, LinkError>,
    ) -> Result<(), LinkError> {
        let results = match result {
            Ok(results) => results,
            Err(why) => {
                self.sink.not_written(blocks, Cause::NoAnswer);
                return Err(why);
            }
        };
        for (block, status) in blocks.iter().zip(results) {
            let block = std::slice::from_ref(block);
            if status.is_good() {
                self.sink.written(block);
            } else {
                self.sink.not_written(block, Cause::Status(status.bits()));
            }
        }
        Ok(())
    }

    /// The safe state goes out before the link does: what of it is on its way already is waited for.
    pub(super) async fn last_blocks(&mut self) -> Result<(), LinkError> {
        while self.writing_blocks
            && let Some(done) = self.jobs.join_next().await
        {
            if let Ok(Done::Blocks { blocks, result }) = done {
                self.writing_blocks = false;
                self.blocks_written(&blocks, result)?;
            }
        }
        let mut blocks = Vec::new();
        self.sink.due_writes(&mut blocks);
        let values = self.block_values(&mut blocks);
        if values.is_empty() {
            return Ok(());
        }
        let result = self.link().write(&values).await;
        self.blocks_written(&blocks, result)
    }

    /// Takes over this wish and those that wait behind it.
    pub(super) fn write_wishes(&mut self, first: TagWrite, wishes: &mut mpsc::Receiver<TagWrite>) {
        let mut all = vec![first];
        while all.len() < WISHES_MAX
            && let Ok(next) = wishes.try_recv()
        {
            all.push(next);
        }
        let node_of = |point: PointId| -> Option<NodeId> {
            let index = self.index_of.get(&point)?;
            Some(self.live.watch.items.get(*index)?.node.as_ref()?.node_id.clone())
        };
        let all = all.into_iter().map(|wish| (node_of(wish.point), wish)).collect();
        let (link, kinds) = (self.link(), std::mem::take(&mut self.live.kinds));
        self.writing_wishes = true;
        self.jobs.spawn(async move { Done::Wishes(write_tags(link, all, kinds).await) });
    }
}

fn write_value(node_id: NodeId, block: &BlockWrite) -> WriteValue {
    WriteValue {
        node_id,
        attribute_id: AttributeId::Value as u32,
        index_range: NumericRange::None,
        value: DataValue { value: Some(block_value(&block.words)), ..DataValue::default() },
    }
}
