# The paper's Tables 1 to 6, a target each: make table3 DATASET=ucf101 DATA_ROOT=/data/ucf101.
# Every pre-training, fine-tuning and evaluation is made once, however many cells it serves; run
# again to go on. TABLES collects the cells, the paper's number beside ours and the floors.

TABLES  ?= tables/paper.csv
RUNS    ?= runs/paper
# Repetitions of each fine-tuning, and networks of random weights beside each result.
SEEDS   ?= 1
PRETRAIN_FLAGS ?=
FINETUNE_FLAGS ?= --val 0
EVALUATE_FLAGS ?= --protocol ours
SMOKE   ?=

# Where the shards of each dataset lie; of ucf101, hmdb51 and kinetics400 they are made if absent.
TRAIN_ucf101     ?= shards/ucf101/ucf101-train1
TEST_ucf101      ?= shards/ucf101/ucf101-test1
TRAIN_hmdb51     ?= shards/hmdb51/hmdb51-train1
TEST_hmdb51      ?= shards/hmdb51/hmdb51-test1
TRAIN_kinetics   ?= shards/kinetics400/kinetics400-train
# Clips every 8 frames; labels are not needed: FLAGS="--no-labels --clip-stride 8".
SHARDS_aslan     ?= shards/aslan
PAIRS_aslan      ?= data/aslan/View2.mat
SHARDS_yupenn    ?= shards/yupenn

TASKS_pattern-1       := motion/grid
TASKS_pattern-2       := motion/rings
TASKS_pattern-3       := motion/triangles
TASKS_global          := motion/global
TASKS_patterns        := motion/grid,motion/rings,motion/triangles
TASKS_patterns+global := motion
TASKS_appearance      := appearance
TASKS_motion          := motion
TASKS_joint           := motion,appearance
TASKS_kinetics        := motion,appearance

# Cells: table/row/column, and where the fine-tuning behind it begins.
CELLS_table1 := random:scratch pattern-1:pattern-1 pattern-2:pattern-2 pattern-3:pattern-3
CELLS_table2 := random:scratch global:global patterns:patterns patterns+global:motion
CELLS_table3 := scratch:scratch appearance:appearance motion:motion joint:joint
CELLS_table4 := ours-ucf101:joint ours-kinetics:kinetics
COLUMNS_table1 := ucf101
COLUMNS_table2 := ucf101
COLUMNS_table3 := ucf101 hmdb51
COLUMNS_table4 := ucf101 hmdb51

.PHONY: tables table1 table2 table3 table4 table5 table6 tables-smoke
tables: table1 table2 table3 table4 table5 table6  ## fill the paper's Tables 1 to 6, or table1, ... alone; docs/evaluation.md

STARTS := pattern-1 pattern-2 pattern-3 global patterns appearance motion joint kinetics
PRETRAIN_RECIPE = $(if $(filter kinetics,$(1)),kinetics,ucf101)

define pretraining
$(RUNS)/pretrain-$(1)/.done: | $(VENV)/.train $(if $(filter kinetics,$(1)),made-kinetics400,made-ucf101)
	$(BIN)/train pretrain --labels "$(or $(TRAIN_$(1)),$(TRAIN_ucf101))" --tasks $(TASKS_$(1)) \
	    --out $$(@D) --recipe $(call PRETRAIN_RECIPE,$(1)) $(PRETRAIN_FLAGS)
	@touch $$@
endef
$(foreach start,$(STARTS),$(eval $(call pretraining,$(start))))

# Arguments: dataset, start.
define finetuning
$(RUNS)/finetune-$(1)-$(2)/.done: $(if $(filter-out scratch,$(2)),$(RUNS)/pretrain-$(2)/.done) | $(VENV)/.train made-$(1)
	$(BIN)/train finetune --labels "$(TRAIN_$(1))" --out $$(@D) --seeds $(SEEDS) \
	    --init $(if $(filter scratch,$(2)),scratch,$(RUNS)/pretrain-$(2)) $(FINETUNE_FLAGS)
	@touch $$@

$(RUNS)/evaluate-$(1)-$(2)/result.json: $(RUNS)/finetune-$(1)-$(2)/.done $(RUNS)/finetune-$(1)-scratch/.done
	$(BIN)/train evaluate $(RUNS)/finetune-$(1)-$(2)/seed-* --labels "$(TEST_$(1))" --out $$(@D) \
	    $(if $(filter-out scratch,$(2)),$$(addprefix --scratch ,$$(wildcard $(RUNS)/finetune-$(1)-scratch/seed-*))) \
	    --seeds $(SEEDS) $(EVALUATE_FLAGS)
endef
$(foreach data,ucf101 hmdb51,$(foreach start,scratch $(STARTS),$(eval $(call finetuning,$(data),$(start)))))

# Only the column that DATASET names, where it names one.
columns = $(or $(filter $(DATASET),$(COLUMNS_$(1))),$(COLUMNS_$(1)))
row_of = $(word 1,$(subst :, ,$(1)))
start_of = $(word 2,$(subst :, ,$(1)))
cell = $(BIN)/train cell $(1) --table $(2) --row $(3) --column $(4) -o $(TABLES) $(SMOKE) $(5)

define recognition
$(1): $$(foreach c,$$(call columns,$(1)),$$(foreach p,$$(CELLS_$(1)),$$(RUNS)/evaluate-$$(c)-$$(call start_of,$$(p))/result.json))
	$$(foreach c,$$(call columns,$(1)),$$(foreach p,$$(CELLS_$(1)),$$(call cell,$$(RUNS)/evaluate-$$(c)-$$(call start_of,$$(p)),$(1:table%=%),$$(call row_of,$$(p)),$$(c)) &&)) true
endef
$(foreach t,table1 table2 table3 table4,$(eval $(call recognition,$(t))))

SIMILARITY = $(BIN)/train similarity $(1) --labels "$(SHARDS_aslan)" --pairs "$(PAIRS_aslan)" --out $(@D) --seeds $(SEEDS)

$(RUNS)/similarity-self-supervised/result.json: $(RUNS)/pretrain-joint/.done
	$(call SIMILARITY,$(RUNS)/pretrain-joint)

$(RUNS)/similarity-scratch/result.json: $(RUNS)/finetune-ucf101-scratch/.done
	$(call SIMILARITY,$(RUNS)/finetune-ucf101-scratch/seed-*)

$(RUNS)/similarity-fine-tuned/result.json: $(RUNS)/finetune-ucf101-joint/.done
	$(call SIMILARITY,$(RUNS)/finetune-ucf101-joint/seed-*)

table5: $(foreach row,scratch self-supervised fine-tuned,$(RUNS)/similarity-$(row)/result.json)
	$(call cell,$(RUNS)/similarity-self-supervised,5,random,aslan,--of random)
	$(foreach row,scratch self-supervised fine-tuned,$(call cell,$(RUNS)/similarity-$(row),5,$(row),aslan) &&) true

$(RUNS)/scenes/result.json: $(RUNS)/pretrain-joint/.done
	$(BIN)/train scenes $(RUNS)/pretrain-joint --labels "$(SHARDS_yupenn)" --out $(@D) --seeds $(SEEDS)

table6: $(RUNS)/scenes/result.json
	$(call cell,$(RUNS)/scenes,6,ours,yupenn)

# Shards of a dataset are made once, where they are looked for by default.
.PHONY: made-ucf101 made-hmdb51 made-kinetics400
made-ucf101 made-hmdb51: made-%:
	$(if $(or $(SMOKE),$(wildcard shards/$*/run.json)),,$(MAKE) labels DATASET=$* SPLIT="train1 test1")
made-kinetics400:
	$(if $(or $(SMOKE),$(wildcard shards/kinetics400/run.json)),,$(MAKE) labels DATASET=kinetics400 SPLIT=train)

# Every cell of every table at a tiny size, on pieces of the demo videos, in minutes.
SMOKE_SHARDS := shards/smoke
SMOKE_FLAGS  := --recipe small --width 0.05 --epochs 1 --batch 4 --val 0

tables-smoke: data/smoke/.complete $(VENV)/.train  ## fill the paper's Tables 1 to 6 at a tiny size: this shows that everything runs
	for split in train test; do \
	    $(BIN)/labelgen extract --manifest data/smoke/$$split.csv --root data/smoke --flow dis --crops grid:16 \
	        --out $(SMOKE_SHARDS) || exit; done
	$(MAKE) tables SMOKE=--smoke RUNS=runs/smoke TABLES=tables/smoke.csv SEEDS=2 DATASET=demo \
	    PRETRAIN_FLAGS="$(SMOKE_FLAGS)" FINETUNE_FLAGS="$(SMOKE_FLAGS)" \
	    $(foreach d,ucf101 hmdb51 kinetics,TRAIN_$(d)=$(SMOKE_SHARDS)/train) \
	    $(foreach d,ucf101 hmdb51,TEST_$(d)=$(SMOKE_SHARDS)/test) \
	    SHARDS_aslan=$(SMOKE_SHARDS)/train PAIRS_aslan=data/smoke/pairs.csv SHARDS_yupenn=$(SMOKE_SHARDS)/train
	@cat tables/smoke.csv

data/smoke/.complete: workflows/smoke.py data/demo/.complete
	$(BIN)/python workflows/smoke.py data/demo data/smoke
	@touch $@
